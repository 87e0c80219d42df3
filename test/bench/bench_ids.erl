%% SPDX-License-Identifier: Apache-2.0
%% @doc Callback ids: their cost, beside that of a NIF that does nothing and of OTP's unique integers.
-module(bench_ids).

-export([benches/1]).

-define(CALLS, 1000000).

-spec benches(tokamak_bench:options()) -> [tokamak_bench:bench()].
benches(Options) ->
    [fun() -> rows(Options) end].

rows(Options) ->
    Calls = bench_measure:scaled(?CALLS, Options),
    Measured = bench_measure:compare([{Key, fun() -> calls(Fun, Calls) end} || {Key, Fun} <- subjects()], Options),
    [
        row(Measured, "NIF that does nothing", noop),
        row(Measured, "unique_integer([monotonic])", monotonic),
        row(Measured, "unique_integer([])", unique)
    ].

row(Measured, Name, Key) ->
    bench_report:row(#{
        name => "tokamak_id:next/0",
        kind => wall_cost,
        unit => "id",
        subject => maps:get(next, Measured),
        baseline_name => Name,
        baseline => maps:get(Key, Measured)
    }).

%% Ten calls a turn, written out, so that the turn itself counts little.
-define(TEN(Call),
    fun() ->
        _ = Call, _ = Call, _ = Call, _ = Call, _ = Call,
        _ = Call, _ = Call, _ = Call, _ = Call, _ = Call,
        ok
    end
).

subjects() ->
    [
        {next, ?TEN(tokamak_id:next())},
        {noop, ?TEN(tokamak_bench_nif:noop())},
        {monotonic, ?TEN(erlang:unique_integer([monotonic]))},
        {unique, ?TEN(erlang:unique_integer())}
    ].

calls(Fun, Calls) ->
    Turns = Calls div 10,
    bench_measure:timed(Turns * 10, fun() -> turns(Fun, Turns, 0) end).

turns(_Fun, 0, Count) ->
    Count;
turns(Fun, Turns, Count) ->
    ok = Fun(),
    turns(Fun, Turns - 1, Count + 10).
