"""The program `geotrain`: shows what runs and which model states there are; changes jobs and aliases."""
