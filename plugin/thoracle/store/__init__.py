"""The database: connection, tables, migrations and the statements that change them."""
