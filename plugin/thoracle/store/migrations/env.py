"""Run the migrations on the connection that ``database.migrate`` hands over (Alembic)."""

from alembic import context

from thoracle.store.database import VERSION_TABLE
from thoracle.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite cannot alter most of a table in place
)
with context.begin_transaction():
    context.run_migrations()
