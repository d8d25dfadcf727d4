"""`thoracle audit`: questions to the trail, and its care."""
