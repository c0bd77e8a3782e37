"""The numbers of a trained model on a whole split."""
