"""What the bijectors are made of."""
