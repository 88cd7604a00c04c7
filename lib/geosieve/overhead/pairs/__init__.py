"""Photos with pictures of the ground around them."""
