"""The page on which one draws what a model of the store classifies, in the browser."""
