"""Many trials: where and when they run (in process, Ray), the display, and the launch of a study. Only ray_* files import Ray."""
