"""Overhead images: strips of satellites and aeroplanes."""
