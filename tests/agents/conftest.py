"""hypothesis without deadlines: the first example pays for compilation, and shared machines stall."""

from hypothesis import settings

settings.register_profile("headrace", deadline=None)
settings.load_profile("headrace")
