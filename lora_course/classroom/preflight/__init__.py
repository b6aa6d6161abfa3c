"""A look at a machine a week before the course: what is not as it should be, and what to do about it."""
