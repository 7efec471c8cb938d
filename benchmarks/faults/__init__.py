"""`make faults`: what a server does while what it stands on fails, under steady load."""
