"""The places for jobs at a site, as its agent has given them: whether one is left free while a job waits for it."""

from site_agent.jobs import SiteJobs

WAITS = "it waits for a place"


class Places:
    """Of one agent. jobs: what it works on; num_places: `site.max_jobs`."""

    def __init__(self, jobs: SiteJobs, num_places: int) -> None:
        self._jobs = jobs
        self._num_places = num_places

    def waiting(self) -> list[str]:
        """The jobs that wait, and whose coordinator can be told so."""
        return [job for job, (_, outlet) in self._jobs._waiting.items() if outlet.is_open]

    def wrong(self) -> str:
        """What must not last; "" where nothing is."""
        workers = self._jobs._workers
        if len(workers) > self._num_places:
            return f"{len(workers)} jobs have {self._num_places} places"
        for job, (_, outlet) in self._jobs._waiting.items():
            if outlet.is_open and sum(worker.is_occupied(outlet) for worker in workers.values()) < self._num_places:
                return f"{job} waits though there is a place"
        return ""
