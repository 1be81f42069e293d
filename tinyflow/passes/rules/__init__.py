"""Tables and classes of rewrite rules, by purpose."""
