"""Training sets: small images with labels in shuffled files, for a loader that reads whole files."""
