"""What trusted clients may ask over NATS, put together: its endpoints, and the discovery that tells of them."""

from __future__ import annotations

from collections.abc import Callable

from jetway.adapters.nats.admission import QUEUE, NatsQuestions
from jetway.adapters.nats.connection import Connection
from jetway.adapters.nats.names import Names
from jetway.entry.admission import known_endpoint
from jetway.entry.discovery import Discovery
from jetway.entry.questions import Endpoint, QuestionDoor
from jetway.entry.registry_api import get_endpoint, stats_endpoint
from jetway.ports import Clock, Identifiers
from jetway.services.admit import Admission
from jetway.services.catalogue import Catalogue
from jetway.services.metrics import Metrics
from jetway.tasks import Releases


class NatsApi:
    """The micro service `jetway` of one daemon."""

    def __init__(self, connection: Connection, names: Names, metrics: Metrics, releases: Releases) -> None:
        self._connection = connection
        self._names = names
        self._metrics = metrics
        self._releases = releases

    async def open(
        self, admission: Admission, catalogue: Catalogue, clock: Clock, identifiers: Identifiers
    ) -> None:
        """Listen from now on. Raises PortError."""
        names, dropped = self._names, self._metrics.admission_dropped
        known = known_endpoint(admission, names.known_subject)
        others = (
            get_endpoint(catalogue, names.get_subject),
            stats_endpoint(catalogue, names.stats_subject),
        )
        await self._listen(known, on_dropped=lambda reason: dropped.labels(reason).inc())
        for endpoint in others:
            await self._listen(endpoint)
        discovery = Discovery(names.micro_service, identifiers.new_id(), QUEUE, (known, *others), clock.now())
        # Every daemon tells of itself: nobody else can.
        await self._listen(discovery.endpoint(), *discovery.subjects, queue="")

    async def _listen(
        self,
        endpoint: Endpoint,
        *subjects: str,
        queue: str = QUEUE,
        on_dropped: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        questions = NatsQuestions(self._connection, *(subjects or (endpoint.subject,)), queue=queue)
        door = QuestionDoor(endpoint, questions, self._metrics.nats_requests, on_dropped)
        self._releases.add(f"answers of {endpoint.name}", door.drain)
        self._releases.add(f"questions to {endpoint.name}", questions.close)
        await questions.open(door.take)
