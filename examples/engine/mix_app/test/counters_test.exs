# SPDX-License-Identifier: Apache-2.0
defmodule CountersTest do
  use ExUnit.Case

  setup do
    path = Path.join(System.tmp_dir!(), "counters_#{System.pid()}.redb")
    on_exit(fn -> File.rm(path) end)
    {:ok, store} = :kv.open(path)
    %{store: store}
  end

  test "counters count", %{store: store} do
    assert Counters.value(store, "visits") == 0
    assert Enum.map(1..3, fn _ -> Counters.increment(store, "visits") end) == [1, 2, 3]
    assert Counters.increment(store, "errors") == 1
    assert Counters.all(store) == %{"visits" => 3, "errors" => 1}
  end

  test "an error has its kind", %{store: store} do
    assert {:error, {:not_found, "there is no such key"}} = :kv.get(store, "none")
  end
end
