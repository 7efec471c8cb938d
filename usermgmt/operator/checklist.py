"""What checks of an installation and of a deployment share."""


class NotChecked(Exception):
    """A check could not be made, and why; it says nothing about what would have been found."""
