"""What exists: plates, datasets, models, predictions, and what watches over them."""
