"""The program `geotrain`: shows what runs, and pauses, resumes and cancels jobs."""
