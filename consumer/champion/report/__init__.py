"""A dossier for people: as Markdown, and as one HTML page with plots."""
