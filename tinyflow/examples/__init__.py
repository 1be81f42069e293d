"""Programs that ship with the package. They are users: public names only."""
