"""Geometry on the globe: distances and areas, S2 cells, the equal-angle grid."""
