"""Chips: squares of overhead rasters around positions."""
