"""What must hold of plates, datasets, models and predictions."""
