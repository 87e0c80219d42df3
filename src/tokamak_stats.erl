%% SPDX-License-Identifier: Apache-2.0
%% @doc What tokamak counts: as a map, see {@link tokamak:stats/0}, and as text for Prometheus.
%%
%% docs/counters.md says what each number means. Reading costs some microseconds, and some more for each open loop;
%% nothing is added up while nobody reads.
%%
-module(tokamak_stats).

-export([prometheus/0]).
-export([stats/0, sum/1, summary/1, since/2]).

-export_type([times/0, timed/0, summary/0]).

-type times() :: {Sum :: non_neg_integer(), [{End :: pos_integer(), Count :: pos_integer()}]}.
%% How many values (nanoseconds) are below each end and not below the one before, and the sum of all.
-type timed() :: {Count :: non_neg_integer(), Sample :: pos_integer(), times()}.
%% How many there were, and the times of one in `Sample'.
-type summary() :: #{
    count := non_neg_integer(),
    sampled := non_neg_integer(),
    mean => non_neg_integer(),
    p50 => non_neg_integer(),
    p90 => non_neg_integer(),
    p99 => non_neg_integer(),
    p999 => non_neg_integer(),
    max => non_neg_integer()
}.
%% Nanoseconds. A quantile is too high by an eighth at most, and never too low.

%% @doc The counters in the text format that Prometheus reads: what an HTTP server of yours answers as
%% `text/plain; version=0.0.4'.
%%
%% ```
%% <<"# HELP ", _/binary>> = tokamak_stats:prometheus().
%% '''
-spec prometheus() -> binary().
prometheus() ->
    iolist_to_binary(tokamak_exposition:text(stats())).

%% @private What {@link tokamak:stats/0} returns, with the times themselves in place of their summaries.
-spec stats() -> map().
stats() ->
    Runtimes = maps:from_list([{Engine, runtime(Engine)} || Engine <- tokamak_engines:all()]),
    {Loops, WakeSample, WakeTimes} = tokamak_nif:loop_totals(),
    (tokamak_nif:counts())#{
        in_flight => lists:sum([maps:get(in_flight, Runtime) || Runtime <- maps:values(Runtimes)]),
        runtime => maps:get(tokamak_nif, Runtimes),
        engines => Runtimes,
        loop_totals => Loops,
        loop_info => loop_info(),
        wake_to_drain => {maps:get(wakes, Loops), WakeSample, WakeTimes},
        subprocess_totals => tokamak_nif:subprocess_totals(),
        subprocess_info => tokamak_nif:subprocess_list(),
        progress => tokamak_nif:progress_stats(),
        alarms => tokamak_alarms:set()
    }.

%% A loop may be closed meanwhile.
loop_info() ->
    [Info#{loop => Loop} || Loop <- tokamak_nif:loop_list(), #{} = Info <- [tokamak_nif:loop_info(Loop)]].

runtime(Engine) ->
    case Engine:op_stats() of
        shutdown -> #{workers => 0, in_flight => 0};
        Stats -> runtime_stats(Stats)
    end.

runtime_stats(#{calls := Calls, pools := {Started, Running, Totals}, pool_info := Runs} = Stats) ->
    #{busy := Busy, uptime := Uptime, workers := Workers} = Stats,
    Stats#{
        busy_time => Busy,
        busy := Busy / max(1, Uptime * Workers),
        calls := maps:from_list([{Kind, {Ended, Sample, Times}} || {Kind, Ended, Sample, Times} <- Calls]),
        pools := Totals#{started => Started, running => Running},
        pool_info := [Run#{owner => Owner} || {Owner, Run} <- Runs]
    }.

%% @private Of several engines together.
-spec sum([#{Kind => timed()}]) -> #{Kind => timed()}.
sum(All) ->
    lists:foldl(fun(One, Sum) -> maps:merge_with(fun(_Kind, A, B) -> add(A, B) end, One, Sum) end, #{}, All).

add({CountA, Sample, {SumA, A}}, {CountB, Sample, {SumB, B}}) ->
    {CountA + CountB, Sample, {SumA + SumB, orddict:merge(fun(_End, N, M) -> N + M end, A, B)}}.

%% @private What came since an earlier look.
-spec since(timed(), timed()) -> timed().
since({CountBefore, Sample, {SumBefore, Before}}, {Count, Sample, {Sum, Now}}) ->
    Buckets = [
        {End, New}
     || {End, N} <- Now, New <- [N - proplists:get_value(End, Before, 0)], New > 0
    ],
    {Count - CountBefore, Sample, {Sum - SumBefore, Buckets}}.

%% @private Without any times only the counts.
-spec summary(timed()) -> summary().
summary({Count, _Sample, {_Sum, []}}) ->
    #{count => Count, sampled => 0};
summary({Count, _Sample, {Sum, Buckets}}) ->
    Sampled = lists:sum([N || {_End, N} <- Buckets]),
    {Last, _} = lists:last(Buckets),
    Quantile = fun(Share) -> quantile(ceil(Share * Sampled), Buckets) end,
    #{
        count => Count,
        sampled => Sampled,
        mean => Sum div Sampled,
        p50 => Quantile(0.5),
        p90 => Quantile(0.9),
        p99 => Quantile(0.99),
        p999 => Quantile(0.999),
        max => Last - 1
    }.

%% The highest value that the bucket of the value of a rank can hold.
quantile(Rank, [{End, Count} | _]) when Rank =< Count -> End - 1;
quantile(Rank, [{_End, Count} | Rest]) -> quantile(Rank - Count, Rest).
