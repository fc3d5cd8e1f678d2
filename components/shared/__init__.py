"""What several steps need: formats, transforms, models, metrics, and the small tools around them."""
