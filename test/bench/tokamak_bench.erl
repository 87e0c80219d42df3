%% SPDX-License-Identifier: Apache-2.0
%% @doc Runs the benches and reports them: `make bench', or `make bench BENCH="NAME ... OPTION ..."'.
%%
%% Names: `events', `timers', `fds', `ids', `latency', `calls', `streams', `pool', `progress',
%% `subprocess'; without one, all. Options: `--runs N' (5), how often each side is measured;
%% `--output FILE' (_build/bench/results.json); `--quick', a tenth of the work and one run, to see that the
%% benches work.
%%
%% Each row compares tokamak with a baseline that runs in the same VM, turn by turn; see {@link
%% bench_measure}. A count that is not what was sent ends the run with an error.
-module(tokamak_bench).

-export([main/0, main/1]).
-export_type([options/0, bench/0]).

-type options() :: #{
    runs := pos_integer(),
    scale := float(),
    output := file:filename(),
    names := [string()],
    arguments := [string()]
}.
-type bench() :: fun(() -> [bench_report:row() | bench_memory:memory()]).

-define(BENCHES, [
    "events", "timers", "fds", "ids", "latency", "calls", "load", "streams",
    "pool", "progress", "subprocess"
]).

-spec main() -> ok.
main() ->
    main(init:get_plain_arguments()).

-spec main([string()]) -> ok.
main(Arguments) ->
    Options = options(Arguments, (defaults())#{arguments => Arguments}),
    {ok, _} = application:ensure_all_started(tokamak),
    System = bench_system:description(),
    bench_report:print_header(System, Options),
    Entries = lists:flatmap(fun(Name) -> run(Name, Options) end, names(Options)),
    bench_report:write(System, Options, Entries),
    bench_report:print_summary(Entries, Options).

run(Name, Options) ->
    bench_report:print_title(Name),
    Module = list_to_atom("bench_" ++ Name),
    Entries = lists:flatmap(fun run_bench/1, Module:benches(Options)),
    [Entry#{bench => list_to_binary(Name)} || Entry <- Entries].

run_bench(Bench) ->
    Entries = Bench(),
    lists:foreach(fun bench_report:print/1, Entries),
    Entries.

defaults() ->
    #{runs => 5, scale => 1.0, output => "_build/bench/results.json", names => []}.

names(#{names := []}) -> ?BENCHES;
names(#{names := Names}) -> Names.

options([], Options) ->
    Options;
options(["--runs", Runs | Rest], Options) ->
    options(Rest, Options#{runs := list_to_integer(Runs)});
options(["--output", Output | Rest], Options) ->
    options(Rest, Options#{output := Output});
options(["--quick" | Rest], Options) ->
    options(Rest, Options#{runs := 1, scale := 0.1});
options([Name | Rest], #{names := Names} = Options) ->
    case lists:member(Name, ?BENCHES) of
        true -> options(Rest, Options#{names := Names ++ [Name]});
        false -> usage(Name)
    end.

-spec usage(string()) -> no_return().
usage(Wrong) ->
    io:format(standard_error, "~ts? Benches: ~ts. Options: --runs N, --output FILE, --quick~n",
              [Wrong, lists:join(", ", ?BENCHES)]),
    halt(2).
