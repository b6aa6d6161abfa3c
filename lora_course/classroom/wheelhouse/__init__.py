"""One folder for a class without network: every wheel for chosen machines, the models and data, and an installer."""
