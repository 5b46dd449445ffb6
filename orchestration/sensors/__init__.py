"""What starts by itself: new plates, first models, new champions, drift, failures, alerts."""
