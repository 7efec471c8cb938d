"""How much the head of a request may hold, whichever HTTP it is spoken in."""

LONGEST_HEAD = 16 * 1024
MOST_HEADERS = 100  # lines, of whatever names
