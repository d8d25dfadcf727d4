"""What is kept and for how long: rules, purge, legal holds, and exports of a whole."""
