"""Does what a job's state machine asks, in the ledger, in the view and at the agents. Decides nothing itself."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import replace

from coordinator import cuts, events, history, instructions
from coordinator.config import JobConfig
from coordinator.eventlog import EventLog
from coordinator.events import Event
from coordinator.facts import CommitFacts, JobFacts, RoundFacts
from coordinator.instructions import Instruction
from coordinator.late import earlier_cut, staleness, weights
from coordinator.ledger import Ledger
from coordinator.links import Links
from coordinator.messages import committed_message, scan_message, sites_of, to_message
from coordinator.publisher import Publisher, metrics
from coordinator.rules import Phase
from geotrain.tasks.features import Statistics
from geotrain.updates.chunks import give_back
from geotrain.view.cut import Cut

logger = logging.getLogger(__name__)


class Performer:
    """For one job, while it runs. links: the connected agents. log: where is told what is done."""

    def __init__(
        self, job_id: str, config: JobConfig, ledger: Ledger, publisher: Publisher, links: Links, log: EventLog
    ) -> None:
        self._job = job_id
        self._config = config
        self._ledger = ledger
        self._publisher = publisher
        self._links = links
        self._log = log
        self._bytes_at_commit = self._bytes_now()
        # The round as it will be once the cut that sites scan is decided.
        self._scanned = RoundFacts(round=0)

    async def perform(self, asked: Instruction, facts: JobFacts) -> tuple[JobFacts, Event | None]:
        """Returns what the ledger says after it, and the answer, where there is one at once: the machine's next event.

        facts: what the ledger says before. Raises ViewError, Fenced or SpoolLost; then the ledger has to be read again.
        """
        match asked:
            case instructions.ScanCut():
                facts = await self._open_round(asked, facts)
                self._links.send(asked.sites, scan_message(self._job, self._scanned))
            case instructions.DecideCut():
                facts = await self._note_cut(asked, facts)
            case instructions.PublishInitial(statistics):
                return await self._publish_initial(statistics, facts)
            case instructions.PublishRound():
                return await self._publish_round(asked, facts)
            case instructions.PublishLocalized():
                return await self._publish_localized(asked, facts)
            case instructions.DropUpdate():
                self._drop(asked)
        if message := to_message(self._job, asked, self._config):
            self._links.send(sites_of(asked), message)
        return facts, None

    async def _open_round(self, scan: instructions.ScanCut, facts: JobFacts) -> JobFacts:
        now_s = time.time()
        until_ns = Cut.before(now_s, self._config.skew_margin_s).until_ns
        if facts.rounds and facts.rounds[-1].round == scan.round:
            known = facts.rounds[-1]
            # The ledger keeps the cut before until this one is decided: some sites may be done with it.
            another = replace(known, until_ns=until_ns, cut_number=scan.number, cut=None)
            self._scanned = known if scan.number == known.cut_number else another
            return facts
        self._scanned = RoundFacts(
            round=scan.round, base_version=scan.base_version, until_ns=until_ns, sites=scan.sites, opened_s=now_s
        )
        await asyncio.to_thread(self._ledger.round, self._scanned)
        return facts.with_round(self._scanned)

    async def _note_cut(self, decided: instructions.DecideCut, facts: JobFacts) -> JobFacts:
        if self._scanned.cut is None:  # else it was read again, and is the one that the ledger names
            cut = cuts.facts(decided, decided_s=time.time())
            self._scanned = replace(self._scanned, cut=cut)
            if self._scanned.commit is None:  # else sites come late to localize
                await asyncio.to_thread(self._ledger.round, self._scanned)
                facts = facts.with_round(self._scanned)
                self._log.add(history.cut_event(decided.round, cut))
        self._publisher.use_cut(self._scanned)
        return facts

    async def _publish_initial(
        self, statistics: Mapping[str, Statistics], facts: JobFacts
    ) -> tuple[JobFacts, events.Published]:
        version = await asyncio.to_thread(self._publisher.initial, statistics)
        decided = self._publisher.decision
        first = RoundFacts(
            round=0,
            commit=CommitFacts(committed_s=time.time(), version=version, alias=decided.alias, gate=decided.reason),
        )
        await asyncio.to_thread(self._publisher.commit, first)
        return facts.with_round(first), events.Published(version)

    async def _publish_round(
        self, asked: instructions.PublishRound, facts: JobFacts
    ) -> tuple[JobFacts, events.Published]:
        opened, closed_s, began_s = facts.rounds[-1], time.time(), time.monotonic()
        version = await asyncio.to_thread(self._publisher.reduce, asked.round, asked.updates)
        bytes_now = self._bytes_now()
        # The first model was published in the first round, too.
        publishing_s = asked.phases_s.get(Phase.PUBLISHING.value, 0.0) + time.monotonic() - began_s
        commit = CommitFacts(
            committed_s=time.time(),
            version=version,
            weights=weights(asked.updates, asked.round, self._config.strategy.staleness_discount),
            metrics=metrics(asked.updates),
            seconds=max(0.0, closed_s - opened.opened_s),
            bytes_up=max(0, bytes_now[0] - self._bytes_at_commit[0]),
            bytes_down=max(0, bytes_now[1] - self._bytes_at_commit[1]),
            reason=asked.reason,
            phases_s={**asked.phases_s, Phase.PUBLISHING.value: publishing_s},
            absent=asked.absent,
            staleness=staleness(asked.updates, asked.round),
            earlier_cut=earlier_cut(asked.updates, asked.round, opened.cut_number),
            alias=self._publisher.decision.alias,
            gate=self._publisher.decision.reason,
        )
        self._bytes_at_commit = bytes_now
        committed = replace(opened, commit=commit)
        await asyncio.to_thread(self._publisher.commit, committed)
        for update in asked.updates:
            give_back(update.path)
        for site in self._config.sites:
            self._links.send((site,), committed_message(self._job, site, asked, version))
        self._log.add(history.round_event(committed))
        return facts.with_round(committed), events.Published(version)

    async def _publish_localized(
        self, asked: instructions.PublishLocalized, facts: JobFacts
    ) -> tuple[JobFacts, events.LocalizedPublished]:
        update = asked.update
        localized = await asyncio.to_thread(self._publisher.localized, update, asked.base_version)
        give_back(update.path)
        self._log.add(history.localized_event(localized, self._config.task.name))
        facts = replace(facts, localized={**facts.localized, localized.site: localized})
        return facts, events.LocalizedPublished(update.site)

    def _drop(self, asked: instructions.DropUpdate) -> None:
        update = asked.update
        logger.info("job %s: update of %s for round %d dropped: %s", self._job, update.site, update.round, asked.reason)
        give_back(update.path)

    def _bytes_now(self) -> tuple[int, int]:
        """Bytes up and down, of the job's sites that are connected, since they joined."""
        links = [self._links[site] for site in self._config.sites if site in self._links]
        state_bytes = self._publisher.state_bytes
        return sum(link.bytes_up for link in links), sum(link.bytes_down + state_bytes for link in links)
