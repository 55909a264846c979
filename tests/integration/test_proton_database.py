"""What is Proton's own: away, slow, lost in the middle, cancelled, hammered, and late to show what was written."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jetway.adapters.clock import SystemClock
from jetway.adapters.database import proton
from jetway.adapters.database.proton import ProtonDatabase
from jetway.adapters.database.proton_client import ProtonClient
from jetway.core.errors import OutcomeUnknownError, RejectedError, StartupError, UnavailableError
from jetway.core.ids import ServiceKey, ServiceType
from jetway.ports import EventQuery
from support.database_rows import MOMENT, after, agent_row, checker_row, event, package_row, poller_row
from support.proton_database import PROTON_MIGRATIONS, opened, own_database, target_of
from support.proton_standin import Fault, ProtonStandin

AGENT = ServiceKey(ServiceType.AGENT, "switch-room")
IN_CI = os.environ.get("JETWAY_CI") == "1"
HAMMER_SECONDS = float(os.environ.get("JETWAY_TEST_PROTON_HAMMER_SECONDS", "30" if IN_CI else "3"))


@pytest.fixture(scope="module")
def server() -> Iterator[ProtonStandin]:
    with ProtonStandin() as running:
        yield running


@pytest.fixture
def standin(server: ProtonStandin) -> Iterator[ProtonStandin]:
    """The module's server, without the faults that a test has set."""
    yield server
    server.faults.clear()
    server.visible_after = 0.0


@pytest.fixture(autouse=True)
def _patient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may stand still for longer than a check waits; silence has tests of its own."""
    if request.cls is not TestSilence:
        monkeypatch.setattr(proton, "_ANSWERS_WITHIN", 30.0)


@pytest.fixture
async def database(standin: ProtonStandin) -> AsyncIterator[ProtonDatabase]:
    with own_database(standin.url) as target:
        async with opened(target) as made:
            await made.migrate()
            with pytest.MonkeyPatch.context() as patience:
                patience.setattr(proton, "_ANSWERS_WITHIN", 30.0)
                await made.check()
            yield made


async def _wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < end, "it never came"
        await asyncio.sleep(0.01)


class TestAway:
    async def test_opening_needs_no_server_and_calls_say_that_it_is_away(self) -> None:
        async with opened(target_of("proton://127.0.0.1:1")) as database:
            for call in (database.check(), database.write_rows([agent_row()], [])):
                with pytest.raises(
                    UnavailableError, match=r"127.0.0.1:1/default does not answer: Connection"
                ):
                    await call

    async def test_what_could_not_be_migrated_at_the_start_is_migrated_once_it_is_there(
        self, standin: ProtonStandin
    ) -> None:
        with own_database(standin.url) as target:
            standin.faults.add(Fault("drop", matching="schema_migrations"))
            async with opened(target) as database:
                with pytest.raises(UnavailableError):
                    await database.migrate()
                await database.write_rows([agent_row()], [])
                assert list((await database.migration_status()).pending) == []
                assert await database.find_row_versions() == {AGENT: (1, 3)}

    async def test_unmigrated_it_says_so(self, standin: ProtonStandin) -> None:
        with own_database(standin.url) as target:
            async with opened(target) as database:
                with pytest.raises(UnavailableError, match="run jetway migrate"):
                    await database.check()
                assert list((await database.migration_status()).pending) == [
                    "0001_registry.sql",
                    "0002_count_samples.sql",
                ]

    async def test_a_wrong_password_is_told_without_it(self) -> None:
        with ProtonStandin(user="ann", password="right") as standin:
            async with opened(target_of(standin.url)) as database:
                await database.migrate()
            wrong = standin.url.replace("right", "s3cret")
            async with opened(target_of(wrong)) as database:
                with pytest.raises(UnavailableError, match="lets us not in") as caught:
                    await database.check()
        assert "s3cret" not in str(caught.value) + repr(caught.value.__cause__)

    async def test_a_connection_that_was_lost_is_made_anew(
        self, standin: ProtonStandin, database: ProtonDatabase
    ) -> None:
        await asyncio.to_thread(standin.drop_connections)
        await database.write_rows([agent_row()], [])
        await asyncio.to_thread(standin.drop_connections)
        assert await database.find_row_versions() == {AGENT: (1, 3)}

    async def test_calls_before_open_are_refused(self, tmp_path: Path) -> None:
        database = ProtonDatabase(target_of("proton://127.0.0.1:1"), tmp_path, SystemClock())
        with pytest.raises(UnavailableError, match="not open"):
            await database.check()


class TestOutcome:
    """Whether a write that failed was done: nobody may be told the wrong thing."""

    async def test_refused_before_the_rows_were_sent_nothing_was_done(
        self, standin: ProtonStandin, database: ProtonDatabase
    ) -> None:
        standin.faults.add(Fault("error", matching="INSERT", code=241, message="Memory limit exceeded"))
        with pytest.raises(UnavailableError, match="Memory limit") as caught:
            await database.write_rows([agent_row()], [])
        assert not isinstance(caught.value, OutcomeUnknownError)
        assert await database.find_row_versions() == {}

    async def test_lost_after_the_rows_were_sent_nobody_knows(
        self, standin: ProtonStandin, database: ProtonDatabase
    ) -> None:
        standin.faults.add(Fault("drop", matching="INSERT", moment="after"))
        with pytest.raises(OutcomeUnknownError):
            await database.write_rows([agent_row()], [])
        assert await database.find_row_versions() == {AGENT: (1, 3)}
        await database.write_rows([agent_row(label="again")], [])
        assert (await database.load_rows([AGENT]))[AGENT].label == "again"

    async def test_refused_after_the_rows_were_sent_nobody_knows(
        self, standin: ProtonStandin, database: ProtonDatabase
    ) -> None:
        standin.faults.add(Fault("error", matching="INSERT", moment="after", code=159, message="Timeout"))
        with pytest.raises(OutcomeUnknownError, match="code 159"):
            await database.write_rows([agent_row()], [])

    async def test_half_of_the_streams_written_is_unknown_and_a_retry_completes_it(
        self, standin: ProtonStandin, database: ProtonDatabase
    ) -> None:
        standin.faults.add(Fault("drop", matching="INSERT INTO edge_packages"))
        batch = ([poller_row(), agent_row()], [package_row()])
        with pytest.raises(OutcomeUnknownError, match="some rows were stored before"):
            await database.write_rows(*batch)
        assert await database.load_packages([package_row().package_id]) == {}
        await database.write_rows(*batch)
        assert len(await database.load_packages([package_row().package_id])) == 1
        assert len(await database.find_row_versions()) == 2

    async def test_what_the_server_refuses_for_its_values_can_never_be_stored(
        self, standin: ProtonStandin, database: ProtonDatabase
    ) -> None:
        standin.faults.add(
            Fault("error", matching="INSERT", moment="after", code=53, message="Type mismatch")
        )
        with pytest.raises(RejectedError, match=r"refused what it was given: .*Type mismatch"):
            await database.write_rows([agent_row()], [])

    async def test_a_repeated_event_is_one(self, standin: ProtonStandin, database: ProtonDatabase) -> None:
        standin.faults.add(Fault("drop", matching="INSERT", moment="after"))
        with pytest.raises(OutcomeUnknownError):
            await database.append_events([event("a"), event("b")])
        await database.append_events([event("a"), event("b"), event("c")])
        page = await database.find_events(EventQuery())
        assert ([found.event_id for found in page.events], page.total) == (["c", "b", "a"], 3)

    async def test_a_time_that_no_stream_holds_names_row_and_column(self, database: ProtonDatabase) -> None:
        with pytest.raises(RejectedError, match="'switch-room' cannot be stored: first_seen: must be a time"):
            await database.write_rows([agent_row(first_seen=MOMENT.replace(year=2500))], [])


class TestLate:
    """Proton shows a write some seconds later: what is not shown yet is known all the same."""

    async def test_an_older_row_is_passed_over_before_the_newer_one_shows(
        self, standin: ProtonStandin, database: ProtonDatabase
    ) -> None:
        standin.visible_after = 3600
        await database.write_rows([agent_row(revision=5, label="new", updated_at=after(5))], [])
        await database.write_rows([agent_row(revision=4, label="old", updated_at=after(4))], [])
        assert await database.find_row_versions() == {}, "nothing shows yet"
        standin.visible_after = 0
        assert (await database.load_rows([AGENT]))[AGENT].label == "new"

    async def test_the_last_of_many_rewrites_of_a_revision_is_shown(
        self, standin: ProtonStandin, database: ProtonDatabase
    ) -> None:
        standin.visible_after = 0.5
        for number in range(20):
            await database.write_rows([agent_row(last_seen=after(number))], [])
        standin.visible_after = 0
        assert (await database.load_rows([AGENT]))[AGENT].last_seen == after(19)

    async def test_another_daemon_that_knows_less_cannot_win(
        self, standin: ProtonStandin, database: ProtonDatabase
    ) -> None:
        standin.visible_after = 0.5
        async with opened(database._target) as other:
            await other.check()
            newer = agent_row(revision=4, label="new", updated_at=after(60_000))
            await database.write_rows([newer], [])
            for _ in range(3):
                await other.write_rows([agent_row(revision=3, label="old")], [])
        standin.visible_after = 0
        assert (await database.load_rows([AGENT]))[AGENT].label == "new"

    async def test_a_restart_goes_on_where_the_table_stands(self, database: ProtonDatabase) -> None:
        await database.write_rows([agent_row(epoch=1, revision=9, updated_at=after(900_000))], [])
        async with opened(database._target) as again:
            await again.write_rows([agent_row(epoch=1, revision=8, label="old")], [])
            await again.write_rows([agent_row(epoch=2, revision=7, label="restored")], [])
            assert (await again.load_rows([AGENT]))[AGENT].label == "restored"


class TestDeadlines:
    async def test_a_slow_answer_is_cancelled_and_its_client_thrown_away(
        self, standin: ProtonStandin, database: ProtonDatabase
    ) -> None:
        standin.faults.add(Fault("slow", matching="SELECT", seconds=30))
        async with opened(database._target, deadline=3.0) as impatient:
            started = time.monotonic()
            standin_threads = threading.active_count()
            with pytest.raises(UnavailableError, match=r"did not answer within 3 s"):
                await impatient.find_row_versions()
            await impatient.check()
            assert time.monotonic() - started < 25, "the thread did not sit the answer out"
            assert threading.active_count() <= standin_threads

    async def test_a_slow_write_may_have_been_done(
        self, standin: ProtonStandin, database: ProtonDatabase
    ) -> None:
        standin.faults.add(Fault("slow", matching="INSERT", seconds=30))
        async with opened(database._target, deadline=3.0) as impatient:
            await impatient.check()
            with pytest.raises(OutcomeUnknownError, match="did not answer within"):
                await impatient.write_rows([agent_row()], [])
            await impatient.check()

    async def test_a_cancelled_read_wakes_its_thread(
        self, standin: ProtonStandin, database: ProtonDatabase
    ) -> None:
        fired = standin.faults.fired
        standin.faults.add(Fault("slow", matching="SELECT", seconds=60, times=4))
        reads = [asyncio.create_task(database.find_row_versions()) for _ in range(4)]
        await _wait_for(lambda: standin.faults.fired >= fired + 4)
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
        async with asyncio.timeout(30):
            await database.check()  # all four clients were held: one had to come free

    async def test_one_that_others_keep_busy_is_not_taken_for_silent(
        self, standin: ProtonStandin, database: ProtonDatabase
    ) -> None:
        await database.append_events([event()])
        fired = standin.faults.fired
        standin.faults.add(Fault("slow", matching="SELECT", seconds=6, times=4))
        reads = [asyncio.create_task(database.find_row_versions()) for _ in range(4)]
        await _wait_for(lambda: standin.faults.fired >= fired + 4)
        assert len((await database.find_events(EventQuery())).events) == 1
        assert await asyncio.gather(*reads) == [{}] * 4, "and theirs were not cut off"


@pytest.fixture
def silent() -> Iterator[tuple[str, list[socket.socket]]]:
    """A server that takes connections and never says anything; its URL and those who came."""
    came: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    came.append(server.accept()[0])

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield f"proton://127.0.0.1:{server.getsockname()[1]}/x", came
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    for each in came:
        each.close()


class TestSilence:
    """A Proton that takes connections and says nothing. Every call here may take ten minutes."""

    PATIENT = 600.0

    async def test_at_a_start_it_is_not_waited_for_and_what_comes_later_migrates(
        self, silent: tuple[str, list[socket.socket]], standin: ProtonStandin
    ) -> None:
        async with opened(target_of(silent[0], timeout=self.PATIENT), deadline=self.PATIENT) as database:
            async with asyncio.timeout(60):
                with pytest.raises(UnavailableError, match=r"did not answer within 0\.2 s"):
                    await database.migrate(answers_within=0.2)
            with own_database(standin.url) as target:
                database._target = target
                await database.write_rows([agent_row()], [])
                assert set(await database.find_row_versions()) == {AGENT}

    async def test_whoever_waits_for_a_page_is_told_soon(
        self,
        silent: tuple[str, list[socket.socket]],
        database: ProtonDatabase,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        await database.append_events([event()])
        async with opened(database._target, deadline=self.PATIENT) as patient:
            await patient.check()
            patient._target = target_of(silent[0], timeout=self.PATIENT)
            await _spoil_all(patient)
            async with asyncio.timeout(60):
                for read in (
                    lambda: patient.find_events(EventQuery()),
                    lambda: patient.load_counts(MOMENT, after(1)),
                    lambda: patient.load_packages(["none"]),
                    patient.migration_status,
                    patient.check,
                ):
                    with pytest.raises(UnavailableError, match="did not answer within"):
                        await read()
            patient._target = database._target
            monkeypatch.setattr(proton, "_ANSWERS_WITHIN", 30.0)
            async with asyncio.timeout(60):
                await patient.check()
                assert len((await patient.find_events(EventQuery())).events) == 1

    async def test_those_who_wait_share_one_attempt(self, silent: tuple[str, list[socket.socket]]) -> None:
        target = target_of(silent[0], timeout=1.0)
        async with opened(target, deadline=self.PATIENT) as database:
            reads = [asyncio.create_task(database.find_row_versions()) for _ in range(6)]
            async with asyncio.timeout(60):
                failures = await asyncio.gather(*reads, return_exceptions=True)
        assert all(isinstance(each, UnavailableError) for each in failures)
        assert {str(each) for each in failures} == {str(failures[0])}
        assert "no answer within" in str(failures[0])
        assert len(silent[1]) == 1, "one attempt for all six"

    async def test_closing_cuts_off_what_runs_and_withdraws_what_waits(
        self, silent: tuple[str, list[socket.socket]]
    ) -> None:
        target = target_of(silent[0], timeout=self.PATIENT)
        database = ProtonDatabase(target, PROTON_MIGRATIONS, SystemClock(), deadline=self.PATIENT)
        await database.open()
        calls = [asyncio.create_task(database._call(_ask)) for _ in range(9)]
        await _wait_for(lambda: len(silent[1]) >= 4, 30)
        async with asyncio.timeout(120):
            await database.close()
            failures = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(each, UnavailableError) for each in failures] == [True] * 9


def _ask(client: ProtonClient) -> object:
    return client.select("SELECT 1")


async def _spoil_all(database: ProtonDatabase) -> None:
    """Each of its threads at one time, so that each has to connect anew."""
    await database._call(lambda client: client.interrupt(), threads=database._asker)
    together = threading.Barrier(4)

    def spoil(client: ProtonClient) -> None:
        together.wait(60)
        client.interrupt()

    await asyncio.gather(*(database._call(spoil) for _ in range(4)))


class TestThreads:
    async def test_sixteen_threads_hammer_the_pool(
        self, standin: ProtonStandin, database: ProtonDatabase
    ) -> None:
        """JETWAY_TEST_PROTON_HAMMER_SECONDS says how long. Connections are cut meanwhile.

        Each writes numbers that count up into a row of its own. What it reads back is one that it wrote, and none
        older than the last that was acknowledged.
        """
        loop = asyncio.get_running_loop()
        # One for each that hammers and one more for whoever cuts: what there is by default is less.
        loop.set_default_executor(ThreadPoolExecutor(24))
        end = time.monotonic() + HAMMER_SECONDS

        def hammer(number: int) -> int:
            done = 0
            key = ServiceKey(ServiceType.CHECKER, f"c-{number}")
            written, acknowledged = 0, 0

            def ask(call: object) -> object:
                return asyncio.run_coroutine_threadsafe(call, loop).result(60)  # type: ignore[arg-type]

            # On a slow machine for as long as a few turns take once nothing is cut any more.
            while time.monotonic() < end or (done < 2 and time.monotonic() < end + 120):
                written += 1
                try:
                    row = checker_row(key.service_id, label=f"of {number}", metadata={"turn": written})
                    ask(database.write_rows([row], []))
                    acknowledged = written
                except UnavailableError:
                    pass  # its connection was cut: this one may be there, or not
                try:
                    rows = ask(database.load_rows([key]))
                except UnavailableError:
                    continue
                assert isinstance(rows, dict)
                if key in rows or acknowledged:
                    assert rows[key].label == f"of {number}", "an answer that was another's"
                    turn = rows[key].metadata["turn"]
                    assert acknowledged <= turn <= written, "a row that was lost, or never written"
                    done += 1
            return done

        async def cut() -> None:
            while time.monotonic() < end:
                await asyncio.sleep(random.uniform(0.2, 0.6))
                await asyncio.to_thread(standin.drop_connections)

        hammers = [asyncio.to_thread(hammer, number) for number in range(16)]
        *counts, _ = await asyncio.gather(*hammers, cut())
        assert all(count is not None and count >= 2 for count in counts), counts
        assert await asyncio.to_thread(lambda: standin.connections) <= 4, "more clients than there may be"
        await database.close()
        await _wait_for(lambda: standin.connections == 0)


class TestClose:
    async def test_it_lets_go_of_every_connection(self, standin: ProtonStandin) -> None:
        with own_database(standin.url) as target:
            async with opened(target) as database:
                await database.migrate()
                await asyncio.gather(*(database.check() for _ in range(8)))
                assert standin.connections >= 1
            await _wait_for(lambda: standin.connections == 0)
            with pytest.raises(UnavailableError, match="not open"):
                await database.check()
            await database.close()

    async def test_a_missing_password_file_keeps_it_from_opening(self, tmp_path: Path) -> None:
        def unreadable() -> str:
            raise UnavailableError("database.password_file: /x cannot be read")

        target = target_of("proton://127.0.0.1:1")
        database = ProtonDatabase(
            type(target)(target.label, target.host, 1, "default", "ann", unreadable), tmp_path, SystemClock()
        )
        with pytest.raises(StartupError, match="password_file"):
            await database.open()
        await database.close()
