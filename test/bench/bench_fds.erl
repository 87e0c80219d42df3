%% SPDX-License-Identifier: Apache-2.0
%% @doc Descriptor events: a byte in a pipe, an event, a read; every event and every byte is counted.
%%
%% Two workloads. `rounds': a native thread writes one byte into each pipe and writes the next ones when the
%% consumer has read all of them, as peers do that wait for an answer; with one descriptor that is a
%% ping-pong. `backlog': bytes wait in the pipes and each read takes one, as with a busy peer.
%%
%% The consumer polls a loop and serves each event by `tokamak_fd:read_and_reselect/2'; a loop has the native
%% backend unless it is told otherwise. Some rows have the owner of a raw loop, which drains, instead. Baseline:
%% enif_select by hand, where the VM sends the consumer a message for each event, which then asks for the
%% callback id, reads and selects again in three calls; and the same in one call. In a backlog, both
%% backends of tokamak report again what is still ready without their source, so that they are measured
%% against enif_select by hand there, not against each other.
-module(bench_fds).

-export([benches/1]).

-define(SIZES, [10, 1000, 10000]).
%% What reads take at most, in rounds: more than is there, as usual.
-define(BUFFER, 64).

-spec benches(tokamak_bench:options()) -> [tokamak_bench:bench()].
benches(Options) ->
    Marked = [
        {100, rounds, #{must => 1.4, aim => 2}},
        {100, backlog, #{must => 1.4, aim => 2}},
        {1, rounds, #{must => 1.0, aim => 3}},
        {1, backlog, #{must => 1.0, aim => 3}}
    ],
    [fun() -> marked(Size, Workload, Marks, Options) end || {Size, Workload, Marks} <- Marked] ++
        [fun() -> growth(Size, Options) end || Size <- ?SIZES].

marked(Size, Workload, NativeMarks, Options) ->
    Kinds = [native, {raw, native}, select, by_hand_separate, by_hand_combined],
    Measured = measure(Kinds, Size, Workload, Options),
    Row = fun(Of, Beside, More) -> row(title(Size, Workload, Of), Measured, Of, Beside, More) end,
    {SelectMarks, ByHandMarks} =
        case Workload of
            rounds -> {NativeMarks, #{}};
            backlog -> {#{}, NativeMarks}
        end,
    [
        Row(native, by_hand_separate, (combined_marks(Size))#{plot => plot(native, Workload, Size)}),
        Row(native, select, SelectMarks),
        Row(native, by_hand_combined, ByHandMarks),
        Row({raw, native}, by_hand_combined, #{}),
        Row(select, by_hand_separate, #{plot => plot(select, Workload, Size)}),
        Row(by_hand_combined, by_hand_separate, #{})
    ].

combined_marks(100) -> #{must => 1.15, aim => 1.3};
combined_marks(_Size) -> #{}.

title(Size, Workload, Of) -> io_lib:format("~b fd(s), ~p, ~s", [Size, Workload, short(Of)]).

short(native) -> "native";
short({raw, native}) -> "native, raw loop";
short(select) -> "select";
short(by_hand_combined) -> "by hand, combined".

plot(Backend, Workload, Size) ->
    #{
        title => io_lib:format("Descriptor events, ~p", [Workload]),
        line => line(Backend),
        x_name => "descriptors",
        x => Size
    }.

line(native) -> "native backend, combined call";
line(select) -> baseline_name(select).

growth(Wanted, Options) ->
    %% Two for each pipe, and some are open already.
    Size = min(Wanted, (bench_system:max_descriptors() - 200) div 2),
    Measured = measure([native, select, by_hand_combined], Size, rounds, Options),
    [
        row(title(Size, rounds, native), Measured, native, Baseline, #{plot => plot(native, rounds, Size)})
     || Baseline <- [select, by_hand_combined]
    ].

measure(Kinds, Size, Workload, Options) ->
    Events = bench_measure:scaled(events(Size), Options),
    Each = max(1, Events div Size),
    Subjects = [{Kind, fun() -> subject(Kind, Size, Workload, Each) end} || Kind <- Kinds],
    bench_measure:compare(Subjects, Options).

%% A round takes as long with one descriptor as with ten.
events(Size) when Size < 10 -> 10000;
events(Size) when Size < 100 -> 20000;
events(_Size) -> 50000.

row(Name, Measured, Subject, Baseline, More) ->
    bench_report:row(More#{
        name => Name,
        kind => rate,
        unit => "event",
        subject => maps:get(Subject, Measured),
        baseline_name => baseline_name(Baseline),
        baseline => maps:get(Baseline, Measured)
    }).

baseline_name(select) -> "select backend, combined call";
baseline_name(by_hand_separate) -> "enif_select, separate calls";
baseline_name(by_hand_combined) -> "enif_select, combined call".

%% `Each' events of each of `Size' descriptors.
subject(Kind, Size, Workload, Each) ->
    {ok, Pipes} = tokamak_bench_nif:pipes_open(Size),
    Source = open(Kind, Pipes),
    Writer = tokamak_bench_nif:writer_start(Pipes),
    prepare(Workload, Source, Pipes, Each),
    Sample = bench_measure:timed(Size * Each, fun() ->
        {Next, Max} = begin_with(Workload, Source, Writer),
        serve(Source, Max, 0, Size * Each, Size, Next)
    end),
    close(Source),
    %% The pipes have to live until here: their ends to be written close with them.
    nil = tokamak_bench_nif:pipes_reader(Pipes),
    Sample.

prepare(rounds, Source, _Pipes, _Each) -> watch(Source);
prepare(backlog, _Source, Pipes, Each) -> ok = tokamak_bench_nif:pipes_fill(Pipes, Each).

begin_with(rounds, _Source, Writer) ->
    Next = fun() -> tokamak_bench_nif:writer_round(Writer) end,
    ok = Next(),
    {Next, ?BUFFER};
begin_with(backlog, Source, _Writer) ->
    watch(Source),
    {fun() -> ok end, 1}.

%% Serves events until all have come, and asks for the next round after each `Size' of them.
serve(_Source, _Max, Total, Total, _Size, _Next) ->
    Total;
serve(Source, Max, Count, Total, Size, Next) ->
    Count1 = Count + take(Source, Max),
    case Count1 rem Size of
        0 when Count1 < Total -> ok = Next();
        _ -> ok
    end,
    serve(Source, Max, Count1, Total, Size, Next).

%% The kinds of sources.

open(by_hand_separate, Pipes) ->
    {by_hand_separate, tokamak_bench_nif:select_open(Pipes)};
open(by_hand_combined, Pipes) ->
    {by_hand_combined, tokamak_bench_nif:select_open(Pipes)};
open({raw, Backend}, Pipes) ->
    {ok, Loop} = tokamak_loop:open(#{backend => Backend}),
    {raw, Loop, open_anew(Pipes)};
open(Backend, Pipes) ->
    {ok, Loop} = tokamak_loop:new(#{backend => Backend}),
    {supervised, Loop, open_anew(Pipes)}.

open_anew(Pipes) ->
    list_to_tuple(open_anew(tokamak_bench_nif:pipes_reader(Pipes), Pipes)).

open_anew(nil, _Pipes) ->
    [];
open_anew(Number, Pipes) ->
    {ok, Fd} = tokamak_fd:open("/proc/self/fd/" ++ integer_to_list(Number), [read]),
    ok = tokamak_bench_nif:pipes_close_reader(Pipes),
    [Fd | open_anew(tokamak_bench_nif:pipes_reader(Pipes), Pipes)].

watch({Kind, Readers}) when Kind =:= by_hand_separate; Kind =:= by_hand_combined ->
    lists:foreach(fun tokamak_bench_nif:select_again/1, Readers);
watch({_Kind, Loop, Fds}) ->
    _ = [ok = tokamak_loop:add_reader(Loop, element(Id, Fds), Id) || Id <- lists:seq(1, tuple_size(Fds))],
    ok.

close({Kind, Readers}) when Kind =:= by_hand_separate; Kind =:= by_hand_combined ->
    lists:foreach(fun tokamak_bench_nif:select_stop/1, Readers);
close({_Kind, Loop, Fds}) ->
    lists:foreach(fun tokamak_fd:close/1, tuple_to_list(Fds)),
    ok = tokamak_loop:destroy(Loop).

%% Waits for events, reads one byte for each and says how many there were.
take({by_hand_separate, _Readers}, Max) ->
    receive
        {select, Reader, undefined, ready_input} ->
            Id = tokamak_bench_nif:select_callback_id(Reader),
            {ok, <<1>>} = tokamak_bench_nif:select_read(Reader, Max),
            ok = tokamak_bench_nif:select_again(Reader),
            counted(Id)
    end;
take({by_hand_combined, _Readers}, Max) ->
    receive
        {select, Reader, undefined, ready_input} ->
            {ok, Id, <<1>>} = tokamak_bench_nif:select_read_and_again(Reader, Max),
            counted(Id)
    end;
take({supervised, Loop, Fds}, Max) ->
    read_all(tokamak_loop:poll(Loop, infinity), Fds, Max, 0);
take({raw, Loop, Fds} = Source, Max) ->
    case tokamak_loop:drain(Loop) of
        {_, []} ->
            receive
                {tokamak, Loop, ready} -> take(Source, Max)
            end;
        {_, Events} ->
            read_all(Events, Fds, Max, 0)
    end.

counted(Id) when is_integer(Id) -> 1.

read_all([{Id, read, undefined} | Rest], Fds, Max, Count) ->
    {ok, Id, <<1>>} = tokamak_fd:read_and_reselect(element(Id, Fds), Max),
    read_all(Rest, Fds, Max, Count + 1);
read_all([], _Fds, _Max, Count) ->
    Count.
