# SPDX-License-Identifier: Apache-2.0
defmodule CountdownTest do
  use ExUnit.Case

  test "every step arrives, in order and not early" do
    arrivals = Countdown.run(5, 10)
    assert length(arrivals) == 5
    assert arrivals == Enum.sort(arrivals)
    for {arrival, step} <- Enum.with_index(arrivals, 1), do: assert(arrival >= step * 10 - 1)
  end

  test "a watched pipe reports what another process writes" do
    {:ok, loop} = :tokamak_loop.new()
    {:ok, read, write} = :tokamak_fd.pipe()
    id = :tokamak_id.next()
    :ok = :tokamak_loop.add_reader(loop, read, id)
    spawn_link(fn -> {:ok, 2} = :tokamak_fd.write(write, "hi") end)

    assert [{^id, :read, _data}] = :tokamak_loop.poll(loop, 5000)
    assert {:ok, "hi"} = :tokamak_fd.read(read, 10)
    assert :ok = :tokamak_loop.destroy(loop)
  end
end
