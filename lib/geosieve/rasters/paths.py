"""Names under which GDAL opens files."""

from __future__ import annotations

from geosieve.runtime.errors import InputError


def gdal_path(uri: str) -> str:
    """The name under which GDAL opens a URI that Hadoop knows (s3a://, s3://, file:).

    InputError for every other scheme and for GDAL's own /vsi… names: they would lead elsewhere.
    """
    scheme, separator, rest = uri.partition("://")
    if scheme in ("s3a", "s3", "s3n") and rest:
        return f"/vsis3/{rest}"
    path = "/" + uri[len("file:") :].lstrip("/") if uri.startswith("file:") else uri
    if path.startswith("/vsi") or (separator and path == uri):
        raise InputError("GDAL may not open it", where=uri, hint="give a local path, file: or s3a://")
    return path


def uri_of(path: str) -> str:
    """The URI of a name that `gdal_path` returned."""
    return path.replace("/vsis3/", "s3a://", 1) if path.startswith("/vsis3/") else path
