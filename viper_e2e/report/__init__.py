"""What people look at: tables, figures, rendered clips, the HTML page. Nothing heavy is imported here."""
