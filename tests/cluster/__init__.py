"""Several hosts on one machine, and what a platform team does on them."""
