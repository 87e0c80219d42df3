%% SPDX-License-Identifier: Apache-2.0
%% Indexes a directory tree: a native pool walks it and hashes every file, `tokamak_progress' feeds a progress
%% bar. Prints totals, the rate, what could not be read and the largest duplicates, and checks a sample of
%% the digests against the system's own sha256sum.
-module(tokamak_index).

-export([main/0]).

-define(LISTED, 5).
-define(SAMPLE, 25).
-define(BAR, 40).

-record(index, {files = [], directories = 0, links = 0, others = 0, unreadable = []}).

main() ->
    [Display | Paths] = init:get_plain_arguments(),
    {ok, _} = application:ensure_all_started(tokamak),
    Root = unicode:characters_to_binary(hd(Paths ++ [code:lib_dir()])),
    try index(Display, filename:absname(Root)) of
        true -> ok;
        false -> halt(1)
    catch
        Class:Reason:Stack ->
            io:format("~nindex: ~p~n", [{Class, Reason, Stack}]),
            halt(1)
    end.

index(Display, Root) ->
    io:format("Indexing ~ts~n", [Root]),
    Start = erlang:monotonic_time(microsecond),
    Progress = subscribe(Display, Root),
    Run = tokamak_pool:start({op, index_file}, [Root], #{progress => {index, Root}}),
    ok = tokamak_pool:close(Run),
    {Index, Stats} = collect(Run, Progress, Display, #index{}),
    Elapsed = max(1, erlang:monotonic_time(microsecond) - Start),
    finish(Display, Progress),
    totals(Index, Stats, Elapsed),
    unreadable(Index#index.unreadable),
    duplicates(Index#index.files),
    check_sample(Index#index.files).

%%% While it runs

subscribe(Display, Root) ->
    tokamak_progress:subscribe({index, Root}, #{interval => maps:get(Display, #{"bar" => 100, "lines" => 500})}).

collect(Run, Progress, Display, Index) ->
    receive
        {tokamak, Run, {results, Results}} ->
            ok = tokamak_pool:ack(Run, 1),
            collect(Run, Progress, Display, lists:foldl(fun add/2, Index, Results));
        {tokamak, Progress, {progress, _Key, Value}} ->
            show(Display, Value),
            collect(Run, Progress, Display, Index);
        {tokamak, Run, {finished, Stats}} ->
            {Index, Stats}
    end.

add({Path, {ok, {file, Size, Digest}}}, #index{files = Files} = Index) ->
    Index#index{files = [{Path, Size, Digest} | Files]};
add({_Path, {ok, directory}}, #index{directories = Count} = Index) ->
    Index#index{directories = Count + 1};
add({_Path, {ok, {link, _Target}}}, #index{links = Count} = Index) ->
    Index#index{links = Count + 1};
add({_Path, {ok, other}}, #index{others = Count} = Index) ->
    Index#index{others = Count + 1};
add({Path, {error, Reason}}, #index{unreadable = Unreadable} = Index) ->
    Index#index{unreadable = [{Path, Reason} | Unreadable]}.

%% What is known grows while the tree is walked, so the bar may go back.
show("bar", #{done := Done, total := Total, percent := Percent}) ->
    Full = Percent * ?BAR div 100,
    Bar = [lists:duplicate(Full, $#), lists:duplicate(?BAR - Full, $.)],
    io:format("\r[~s] ~3b %  ~b of ~b", [Bar, Percent, Done, Total]);
show("lines", #{done := Done, total := Total, percent := Percent}) ->
    io:format("~3b %  ~b of ~b~n", [Percent, Done, Total]).

%% The last value is on its way when the run ends.
finish(Display, Progress) ->
    receive
        {tokamak, Progress, {progress, _Key, #{status := done} = Value}} -> show(Display, Value);
        {tokamak, Progress, {progress, _Key, _Value}} -> finish(Display, Progress)
    after 0 -> ok
    end,
    ok = tokamak_progress:unsubscribe(Progress),
    Display =:= "bar" andalso io:format("\r\e[K").

%%% Results

totals(#index{files = Files, directories = Directories, links = Links, others = Others}, Stats, Elapsed) ->
    Bytes = lists:sum([Size || {_, Size, _} <- Files]),
    #{dispatched := Visited, duplicates := Again} = Stats,
    io:format(
        "~b files, ~b directories, ~b links, ~b others; ~.1f MiB hashed~n"
        "~b places visited once each (~b more ways led to them)~n"
        "~.2f s: ~b files/s, ~.1f MiB/s~n",
        [
            length(Files), Directories, Links, Others, Bytes / 1048576, Visited, Again, Elapsed / 1.0e6,
            length(Files) * 1000000 div Elapsed, Bytes / 1048576 * 1.0e6 / Elapsed
        ]
    ).

unreadable([]) ->
    ok;
unreadable(Unreadable) ->
    io:format("~b unreadable:~n", [length(Unreadable)]),
    [io:format("  ~ts: ~0tp~n", [Path, Reason]) || {Path, Reason} <- lists:sublist(lists:sort(Unreadable), ?LISTED)],
    length(Unreadable) > ?LISTED andalso io:format("  ...~n").

duplicates(Files) ->
    Same = lists:foldl(
        fun({Path, Size, Digest}, Groups) ->
            maps:update_with({Size, Digest}, fun(Paths) -> [Path | Paths] end, [Path], Groups)
        end,
        #{},
        [File || {_, Size, _} = File <- Files, Size > 0]
    ),
    Groups = [{Size * (length(Paths) - 1), Size, Paths} || {{Size, _}, [_, _ | _] = Paths} <- maps:to_list(Same)],
    io:format("~b files have duplicates; the largest:~n", [length(Groups)]),
    Largest = lists:sublist(lists:reverse(lists:sort(Groups)), ?LISTED),
    [io:format("  ~b x ~b bytes: ~ts~n", [length(Paths), Size, lists:min(Paths)]) || {_, Size, Paths} <- Largest],
    ok.

%%% The system's opinion

check_sample(Files) ->
    Shuffled = [File || {_, File} <- lists:sort([{rand:uniform(), File} || File <- Files])],
    Sample = lists:sublist(Shuffled, ?SAMPLE),
    Wrong = [Path || {{Path, _, Digest}, Other} <- lists:zip(Sample, system_digests(Sample)), Digest =/= Other],
    [io:format("WRONG: ~ts~n", [Path]) || Path <- Wrong],
    Wrong =:= [] andalso io:format("~b digests are those of sha256sum~n", [length(Sample)]),
    Wrong =:= [].

system_digests([]) ->
    [];
system_digests(Sample) ->
    Args = ["--zero", "--" | [Path || {Path, _, _} <- Sample]],
    Port = open_port({spawn_executable, os:find_executable("sha256sum")}, [{args, Args}, binary, exit_status]),
    [Digest || <<Digest:64/binary, _/binary>> <- binary:split(output(Port, <<>>), <<0>>, [global])].

output(Port, Output) ->
    receive
        {Port, {data, Data}} -> output(Port, <<Output/binary, Data/binary>>);
        {Port, {exit_status, 0}} -> Output
    end.
