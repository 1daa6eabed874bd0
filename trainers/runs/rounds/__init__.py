"""Plans of several trainings and labelings, carried out in one folder."""
