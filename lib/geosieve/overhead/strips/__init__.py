"""Strips become 8-bit RGB images in UTM, as cloud-optimised GeoTIFFs."""
