# SPDX-License-Identifier: Apache-2.0
defmodule Countdown do
  @moduledoc "Counts down with the timers of one loop; its events arrive as messages."

  @doc "Returns the milliseconds from the start at which each of the `steps` arrived."
  @spec run(pos_integer, non_neg_integer) :: [non_neg_integer]
  def run(steps, milliseconds) do
    {:ok, loop} = :tokamak_loop.new()
    id = :tokamak_id.next()
    ref = :tokamak_loop.register(loop, id, self())
    start = System.monotonic_time(:millisecond)
    for step <- 1..steps, do: :tokamak_loop.start_timer(loop, step * milliseconds, id)

    arrivals =
      for _step <- 1..steps do
        receive do
          {:tokamak, ^ref, {:event, ^id, :timer, _data}} ->
            System.monotonic_time(:millisecond) - start
        end
      end

    :ok = :tokamak_loop.destroy(loop)

    receive do
      {:tokamak, ^ref, :closed} -> arrivals
    end
  end
end
