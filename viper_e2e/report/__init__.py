"""report: what people look at: tables, figures, rendered clips, the HTML page; nothing heavy is imported."""
