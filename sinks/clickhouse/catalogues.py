"""Catalogues by version: stored when a worker first uses one, read back for segments that were judged by it."""

from pipeline.catalogue import Catalogue, catalogue_from_json
from pipeline.errors import CatalogueError
from sinks.clickhouse.client import Client, Column


def store_catalogue(client: Client, catalogue: Catalogue) -> None:
    """Store the catalogue under its version.

    Raises:
        CatalogueError: the version is there with other content.
    """
    version = {"version": catalogue.version}
    stored = client.query("SELECT checksum FROM catalogues WHERE version = {version:UInt32}", version).rows
    if any(checksum != catalogue.checksum for (checksum,) in stored):
        raise CatalogueError(
            f"catalogue version {catalogue.version} was used before with other content;"
            f" give the changed catalogue a higher version"
        )
    if not stored:
        client.insert(
            "catalogues",
            [
                Column("version", "UInt32", [catalogue.version]),
                Column("checksum", "String", [catalogue.checksum]),
                Column("content", "String", [catalogue.json]),
            ],
        )


def stored_catalogue(client: Client, version: int) -> Catalogue:
    """The catalogue of a version.

    Raises:
        CatalogueError: no worker ever stored that version.
    """
    rows = client.query(
        "SELECT content FROM catalogues WHERE version = {version:UInt32} LIMIT 1", {"version": version}
    ).rows
    if not rows:
        raise CatalogueError(f"catalogue version {version} is named by a receipt but not stored in the database")
    return catalogue_from_json(rows[0][0], f"catalogue version {version} in the database")
