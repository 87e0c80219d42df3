# SPDX-License-Identifier: Apache-2.0
defmodule Counters do
  @moduledoc "Counters that survive a restart, in the store of the engine."

  def increment(store, name) do
    count = value(store, name) + 1
    :ok = :kv.put(store, name, Integer.to_string(count))
    count
  end

  def value(store, name) do
    case :kv.get(store, name) do
      {:ok, value} -> String.to_integer(value)
      {:error, {:not_found, _}} -> 0
    end
  end

  def all(store) do
    {:ok, pairs} = :kv.fold(fn pair, pairs -> [pair | pairs] end, [], store, "")
    Map.new(pairs, fn {name, value} -> {name, String.to_integer(value)} end)
  end
end
