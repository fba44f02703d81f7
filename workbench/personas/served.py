"""Rollouts that a chat server samples and the loaded model reads: the same results as sampling them here.

The server writes texts; their tokens are those of the model's own tokenizer, after the model's own prompt. All missing
rows are asked for at once and read batch by batch as they are needed, so the server need not wait for the captures.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.models.endpoints import ChatEndpoint, ChatReply, EndpointError
from workbench.models.generation import Generated, Sampling
from workbench.models.hookpoints import HookPoint
from workbench.models.loading import Model
from workbench.models.prompts import ChatTokens, messages_to_send, tokenize_chat, with_response
from workbench.models.servers import ChatServer
from workbench.models.thinking import answer_start
from workbench.personas.reencoding import answer_lead, captured, chat_messages

if TYPE_CHECKING:
    from workbench.personas.rows import PlannedRow

SEEDS = 2**31  # servers keep a seed in 32 bits, some of them with a sign


class ServedReplies:
    """The answers of `server` to planned rows; a context manager that keeps what was answered, however it ends.

    Answers are cached by the content of their request (sample and seed included): no answered one is sent again.
    """

    def __init__(
        self, server: ChatServer, model: Model, rows: Sequence[PlannedRow], sampling: Sampling
    ) -> None:
        self.server, self.model, self.sampling = server, model, sampling
        self._rows = {row.id: row for row in rows}
        self._endpoint = ChatEndpoint(server)
        self._pool = ThreadPoolExecutor(server.n_workers)
        self._asked: dict[str, Future[ChatReply]] = {}

    def __enter__(self) -> ServedReplies:
        return self

    def __exit__(self, *error: object) -> None:
        self._endpoint.give_up()  # what is under way is still answered and cached
        self._pool.shutdown(cancel_futures=True)
        self._endpoint.__exit__(*error)

    def ask(self, batches: Sequence[Sequence[str]]) -> None:
        """Send the requests of these rows, in this order, as fast as the server answers."""
        for row_id in (row_id for batch in batches for row_id in batch):
            row = self._rows[row_id]
            messages = messages_to_send(self.model, chat_messages(row.system, row.question))
            self._asked[row_id] = self._pool.submit(self._reply, row, messages)

    def generate(
        self,
        ids: Sequence[str],
        prompts: Sequence[ChatTokens],
        hooks: Sequence[HookPoint],
        token_hooks: Sequence[HookPoint],
    ) -> list[Generated]:
        """The answers of rows that were asked for, with what the model's inside is while reading them.

        Thinking that a server leaves in its replies is context where the chat template keeps it, and no part of the answer.
        Raises WorkbenchError when answers are missing after all attempts, or when the server refuses a request.
        """
        replies = self._answers(ids)
        read = [self._read(row_id, prompt, reply.text) for row_id, prompt, reply in zip(ids, prompts, replies, strict=True)]
        leads, spoken = [lead for lead, _ in read], [answer for _, answer in read]
        chats = [with_response(prompt, one, lead_ids=lead) for prompt, (lead, one) in zip(prompts, read, strict=True)]
        means, tokens, n_sinks = captured(self.model, chats, hooks, token_hooks)
        ended = [reply.finish_reason == "stop" for reply in replies]
        return [
            Generated(prompts[i], spoken[i], reply.text[answer_start(reply.text) :], ended[i],
                      means[i] if spoken[i] else None, {hook: tokens[hook][i] for hook in token_hooks},
                      n_sinks[i], leads[i])
            for i, reply in enumerate(replies)
        ]  # fmt: skip

    def _answers(self, ids: Sequence[str]) -> list[ChatReply]:
        replies: list[ChatReply] = []
        failures: list[EndpointError] = []
        for row_id in ids:
            try:
                replies.append(self._asked.pop(row_id).result())
            except EndpointError as error:
                failures.append(error)
        if failures:
            raise WorkbenchError(
                f"{len(failures)} of {len(ids)} answers of a batch are missing from {self.server.base_url}: "
                + failures[-1].found,
                "an answer to every request",
                "see to the server, then run the same command again: it goes on where it stopped, and what was answered "
                "is cached and not asked again",
            )
        return replies

    def _reply(self, row: PlannedRow, messages: list[dict[str, str]]) -> ChatReply:
        options = self.model.chat_template_kwargs
        asked: dict[str, Any] = {**self.server.fields, "top_p": self.sampling.top_p, "seed": row.seed % SEEDS}
        return self._endpoint.chat(
            messages,
            max_tokens=self.sampling.max_new_tokens,
            temperature=self.sampling.temperature,
            sample=row.sample,
            fields=asked | ({"chat_template_kwargs": options} if options else {}),
            silence=True,
        )

    def _read(self, row_id: str, prompt: ChatTokens, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(ids before the answer, ids of the answer)."""
        # Tokenised inside the chat and cut out by the span, as given texts are: alone, its first word could split differently.
        if not text.strip():
            return (), ()
        row = self._rows[row_id]
        messages = [*chat_messages(row.system, row.question), {"role": "assistant", "content": text}]
        chat = tokenize_chat(self.model, messages)
        answer = tuple(chat.ids[position] for position in chat.positions("response"))
        return answer_lead(self.model, prompt, chat), answer
