"""The rules of all workers that ever ran: what a marker may ask for."""

from pipeline.fold.rules import Rules
from sinks.clickhouse.client import Client, Column


def store_rules(client: Client, rules: Rules) -> None:
    """Keep the rules of a worker; before it writes a marker that asks for them."""
    text = rules.to_json()
    if stored_rules(client, text) is None:
        client.insert("rules", [Column("rules", "String", [text])])


def stored_rules(client: Client, text: str) -> Rules | None:
    """The rules with this text, if a worker ever had them; a marker can be written by anybody."""
    found = client.query("SELECT 1 FROM rules WHERE rules = {text:String} LIMIT 1", {"text": text}).rows
    return Rules.from_json(text) if found else None
