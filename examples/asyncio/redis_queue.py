#!/usr/bin/env python3
"""
A queue of work in redis: some produce, some consume, one is called off while it waits.

Shows: a client library that opens connections, blocks on them and is cancelled.

    python examples/asyncio/redis_queue.py [--port 6379]     (needs a redis server)
"""

import argparse
import asyncio

from redis.asyncio import Redis

import uringio.aio

QUEUE = "uringio-example"


async def produce(client: Redis, numbers: range) -> None:
    for number in numbers:
        await client.rpush(QUEUE, number)


async def consume(client: Redis) -> int:
    """Add up what comes, until a zero does."""
    total = 0
    while True:
        _, value = await client.blpop([QUEUE])
        if value == b"0":
            return total
        total += int(value)


async def main() -> None:
    parser = argparse.ArgumentParser(description="redis on uringio's loop.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=6379)
    options = parser.parse_args()
    async with Redis(host=options.host, port=options.port) as client:
        await client.delete(QUEUE)
        try:
            await asyncio.wait_for(consume(client), 0.05)
        except TimeoutError:
            print("nothing to do yet")
        async with asyncio.TaskGroup() as group:
            consumers = [group.create_task(consume(client)) for _ in range(4)]
            producers = [
                group.create_task(produce(client, range(first, 401, 4))) for first in range(1, 5)
            ]
            await asyncio.wait(producers)
            await client.rpush(QUEUE, *[0] * len(consumers))
        print("sum:", sum(consumer.result() for consumer in consumers))


if __name__ == "__main__":
    uringio.aio.run(main())
