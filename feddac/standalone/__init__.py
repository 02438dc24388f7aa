"""Search and training for one user with one data set: no server and no devices."""
