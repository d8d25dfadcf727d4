"""What is kept and for how long (`thoracle retention`, `hold`), and what leaves as a whole."""
