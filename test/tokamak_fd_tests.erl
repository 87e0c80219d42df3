%% SPDX-License-Identifier: Apache-2.0
%% Descriptors: opening, reading, writing, whose they are and when they are closed.
-module(tokamak_fd_tests).

-include_lib("eunit/include/eunit.hrl").

%% For logger.
-export([log/2]).

-define(MAX_TRANSFER, 262144).

fd_test_() ->
    tokamak_test:with_application([
        {"opening", tokamak_test:cases(opening())},
        {"reading and writing", tokamak_test:cases(transfers())},
        {"descriptors of others", tokamak_test:cases(foreign())},
        {"owning", tokamak_test:cases(owning())},
        {"closing", tokamak_test:on_backends(closing())}
    ]).

opening() ->
    [
        {"modes do what file:open/2 does with them", fun modes_are_those_of_file/0},
        {"a missing file, or a file as a directory, is an error", fun wrong_paths_are_errors/0},
        {"a name may be a binary or have any character of Unicode", fun names_may_be_anything/0},
        {"a FIFO opens for reading without a writer", fun a_fifo_opens_without_a_writer/0},
        {"a FIFO that nobody reads does not open for writing", fun a_fifo_without_reader/0},
        {"no descriptor is inherited by other programs", fun nothing_is_inherited/0}
    ].

transfers() ->
    [
        {"an empty pipe says again, one without writers eof", fun an_empty_pipe/0},
        {"a read is short when less is there, and never longer than asked", fun reads_are_short/0},
        {"a full pipe says again until somebody reads", fun a_full_pipe/0},
        {"a write to a pipe without readers is an error", fun a_broken_pipe/0},
        {"iodata of many binaries arrives in order", fun iodata_arrives/0},
        {"empty iodata writes nothing", fun empty_iodata/0},
        {"one call moves at most 256 KiB", fun one_call_is_bounded/0},
        {"a regular file is read and written to its end", fun a_regular_file/0},
        {"appended data goes to the end", fun appending/0},
        {"a direction that was not opened is an error", fun wrong_direction/0},
        {"/dev/null takes everything and has nothing", fun dev_null/0},
        {"many processes share a pipe and lose no byte", fun shared_pipe/0}
    ].

foreign() ->
    [
        {"a duplicate leaves the flags of the original alone", fun flags_stay/0},
        {"a duplicate of a blocking pipe never blocks", fun a_duplicate_never_blocks/0},
        {"closing a duplicate leaves the original open", fun the_original_stays_open/0},
        {"a number that is not open is an error", fun a_number_that_is_not_open/0}
    ].

owning() ->
    [
        {"any process reads and writes", fun any_process_transfers/0},
        {"only the owner closes", fun only_the_owner_closes/0},
        {"only the owner gives it away", fun only_the_owner_gives_away/0},
        {"the new owner closes it, the old one cannot", fun the_new_owner_closes/0},
        {"it cannot be given to a dead process", fun no_gift_to_the_dead/0},
        {"it survives its maker when it was given away", fun it_survives_its_maker/0},
        {"a file is closed on a dirty scheduler, by its owner", fun a_file_is_closed/0},
        {"it closes with the owner that it was given to", fun it_closes_with_its_new_owner/0},
        {"it closes with its owner, even when others know it", fun it_closes_with_its_owner/0},
        {"it closes with its owner, also when it is being watched just then", fun it_closes_while_it_is_watched/0},
        {"it closes when nobody knows it any more", fun it_closes_with_its_last_reference/0},
        {"after close everything says closed", fun after_close/0}
    ].

closing() ->
    [
        {"a watched descriptor that is closed gives its number back", fun closing_watched/1},
        {"a watched descriptor closes with its owner", fun watched_closes_with_owner/1},
        {"one that was watched and that nobody knows closes with its owner", fun once_watched_closes_with_owner/1},
        {"regular files and /dev/null cannot be watched", fun not_pollable/1}
    ].

%% Opening

modes_are_those_of_file() ->
    Modes = [
        [read],
        [write],
        [append],
        [read, write],
        [read, append],
        [write, append],
        [read, write, append],
        [write, exclusive],
        [append, exclusive],
        [read, write, exclusive]
    ],
    tokamak_test:with_directory(fun(Directory) ->
        [compare_modes(Directory, Mode, Content) || Mode <- Modes, Content <- [none, <<"content">>]]
    end).

compare_modes(Directory, Modes, Content) ->
    [Expected, Found] = [
        opened(filename:join(Directory, Name), Content, Open, Modes)
     || {Name, Open} <- [{"expected", fun expected/2}, {"found", fun found/2}]
    ],
    ?assertEqual({Modes, Content, Expected}, {Modes, Content, Found}).

opened(Path, Content, Open, Modes) ->
    _ = file:delete(Path),
    _ = [ok = file:write_file(Path, Content) || Content =/= none],
    Result = Open(Path, Modes),
    {Result, file:read_file(Path)}.

expected(Path, Modes) ->
    case file:open(Path, [binary, raw | Modes]) of
        {ok, File} ->
            Written = file:write(File, <<"new">>) =:= ok,
            ok = file:close(File),
            {opened, Written};
        {error, Reason} ->
            Reason
    end.

found(Path, Modes) ->
    case tokamak_fd:open(Path, Modes) of
        {ok, Fd} ->
            Written = tokamak_fd:write(Fd, <<"new">>) =:= {ok, 3},
            ok = tokamak_fd:close(Fd),
            {opened, Written};
        {error, Reason} ->
            Reason
    end.

wrong_paths_are_errors() ->
    tokamak_test:with_directory(fun(Directory) ->
        File = filename:join(Directory, "file"),
        ok = file:write_file(File, <<>>),
        ?assertEqual({error, enoent}, tokamak_fd:open(filename:join(Directory, "none"), [read])),
        ?assertEqual({error, enotdir}, tokamak_fd:open(filename:join(File, "x"), [read])),
        ?assertEqual({error, eisdir}, tokamak_fd:open(Directory, [write])),
        ?assertEqual({error, eexist}, tokamak_fd:open(File, [write, exclusive]))
    end).

names_may_be_anything() ->
    tokamak_test:with_directory(fun(Directory) ->
        [
            begin
                Path = filename:join(Directory, Name),
                {ok, Fd} = tokamak_fd:open(Path, [write]),
                {ok, 1} = tokamak_fd:write(Fd, <<"x">>),
                ok = tokamak_fd:close(Fd),
                ?assertEqual({ok, <<"x">>}, file:read_file(Path))
            end
         || Name <- ["plain", <<"binary">>, with_dot, "with space", <<"latin", 16#E9>>] ++
                ["caf" ++ [16#E9] || file:native_name_encoding() =:= utf8]
        ]
    end).

a_fifo_opens_without_a_writer() ->
    with_fifo(fun(Path) ->
        {ok, Read} = tokamak_fd:open(Path, [read]),
        ?assertEqual(eof, tokamak_fd:read(Read, 10)),
        {ok, Write} = tokamak_fd:open(Path, [write]),
        ?assertEqual(again, tokamak_fd:read(Read, 10)),
        {ok, 5} = tokamak_fd:write(Write, "hello"),
        ?assertEqual({ok, <<"hello">>}, tokamak_fd:read(Read, 10))
    end).

a_fifo_without_reader() ->
    with_fifo(fun(Path) ->
        ?assertEqual({error, enxio}, tokamak_fd:open(Path, [write])),
        ?assertMatch({ok, _}, tokamak_fd:open(Path, [read, write]))
    end).

with_fifo(Fun) ->
    tokamak_test:with_directory(fun(Directory) ->
        Path = filename:join(Directory, "fifo"),
        "" = os:cmd("mkfifo " ++ Path),
        Fun(Path)
    end).

nothing_is_inherited() ->
    {Read, Write} = tokamak_test_nif:pipe(),
    {ok, Before} = file:list_dir("/proc/self/fd"),
    {ok, File} = tokamak_fd:open("/etc/hostname", [read]),
    {ok, PipeRead, PipeWrite} = tokamak_fd:pipe(),
    {ok, Duplicate} = tokamak_fd:from_integer(Read),
    Loop = tokamak_test:raw_loop(native),
    {ok, After} = file:list_dir("/proc/self/fd"),
    %% One number is that of the directory that was listed.
    Infos = [file:read_file(filename:join("/proc/self/fdinfo", N)) || N <- After -- Before],
    Flags = [flags(Info) || {ok, Info} <- Infos],
    %% One of the new numbers may be that of the first listing.
    ?assert(length(Flags) >= 4),
    %% O_CLOEXEC
    ?assertEqual([], [F || F <- Flags, F band 8#2000000 =:= 0]),
    [ok = tokamak_fd:close(Fd) || Fd <- [File, PipeRead, PipeWrite, Duplicate]],
    ok = tokamak_loop:destroy(Loop),
    [ok = tokamak_test_nif:close(N) || N <- [Read, Write]].

flags(Info) ->
    {match, [Octal]} = re:run(Info, "flags:\\s*([0-7]+)", [{capture, all_but_first, list}]),
    list_to_integer(Octal, 8).

%% Reading and writing

an_empty_pipe() ->
    {ok, Read, Write} = tokamak_fd:pipe(),
    ?assertEqual(again, tokamak_fd:read(Read, 1)),
    ok = tokamak_fd:close(Write),
    ?assertEqual(eof, tokamak_fd:read(Read, 1)),
    ?assertEqual(eof, tokamak_fd:read(Read, 1)).

reads_are_short() ->
    {ok, Read, Write} = tokamak_fd:pipe(),
    {ok, 10} = tokamak_fd:write(Write, <<"0123456789">>),
    ?assertEqual({ok, <<"0123">>}, tokamak_fd:read(Read, 4)),
    ?assertEqual({ok, <<"456789">>}, tokamak_fd:read(Read, 16#7FFFFFFF)),
    ?assertEqual(again, tokamak_fd:read(Read, 1)).

a_full_pipe() ->
    {ok, Read, Write} = tokamak_fd:pipe(),
    Written = fill(Write, crypto:strong_rand_bytes(5000), 0),
    ?assert(Written >= 4096),
    ?assertEqual(again, tokamak_fd:write(Write, <<"x">>)),
    {ok, Some} = tokamak_fd:read(Read, 16384),
    {ok, More} = tokamak_fd:write(Write, binary:copy(<<"y">>, 16384)),
    ?assertEqual(Written + More, byte_size(Some) + empty(Read, 0)).

fill(Write, Data, Written) ->
    case tokamak_fd:write(Write, Data) of
        {ok, Count} -> fill(Write, Data, Written + Count);
        again -> Written
    end.

empty(Read, Count) ->
    case tokamak_fd:read(Read, 100_000) of
        {ok, Data} -> empty(Read, Count + byte_size(Data));
        again -> Count
    end.

a_broken_pipe() ->
    {ok, Read, Write} = tokamak_fd:pipe(),
    ok = tokamak_fd:close(Read),
    ?assertEqual({error, epipe}, tokamak_fd:write(Write, <<"x">>)).

iodata_arrives() ->
    {ok, Read, Write} = tokamak_fd:pipe(),
    Item = fun(N) ->
        case N rem 5 of
            0 -> N rem 256;
            1 -> <<>>;
            2 -> binary:copy(<<N:32>>, 50);
            3 -> [N rem 256, [<<N:32>> | <<"tail">>]];
            4 -> integer_to_binary(N)
        end
    end,
    Data = lists:map(Item, lists:seq(1, 8000)),
    Expected = iolist_to_binary(Data),
    %% More binaries than one call can take, so the rest is written again.
    ?assertEqual(Expected, iolist_to_binary(transfer(Read, Write, Data))).

transfer(_Read, _Write, <<>>) ->
    [];
transfer(Read, Write, Data) ->
    {ok, Written} = tokamak_fd:write(Write, Data),
    {ok, Got} = tokamak_fd:read(Read, ?MAX_TRANSFER),
    ?assertEqual(Written, byte_size(Got)),
    <<_:Written/binary, Rest/binary>> = iolist_to_binary(Data),
    [Got | transfer(Read, Write, Rest)].

empty_iodata() ->
    {ok, Read, Write} = tokamak_fd:pipe(),
    [?assertEqual({ok, 0}, tokamak_fd:write(Write, Data)) || Data <- [<<>>, [], [[], <<>>], ""]],
    ?assertEqual(again, tokamak_fd:read(Read, 1)).

one_call_is_bounded() ->
    with_file(fun(Path) ->
        {ok, Fd} = tokamak_fd:open(Path, [write]),
        ?assertEqual({ok, ?MAX_TRANSFER}, tokamak_fd:write(Fd, <<0:8_000_000>>)),
        {ok, Read} = tokamak_fd:open(Path, [read]),
        {ok, Data} = tokamak_fd:read(Read, 1_000_000),
        ?assertEqual(?MAX_TRANSFER, byte_size(Data)),
        ?assertEqual(eof, tokamak_fd:read(Read, 1_000_000))
    end).

a_regular_file() ->
    with_file(fun(Path) ->
        Data = crypto:strong_rand_bytes(300_000),
        ok = file:write_file(Path, Data),
        {ok, Fd} = tokamak_fd:open(Path, [read, write]),
        {ok, First} = tokamak_fd:read(Fd, 100_000),
        {ok, Second} = tokamak_fd:read(Fd, 200_001),
        ?assertEqual(Data, <<First/binary, Second/binary>>),
        ?assertEqual(eof, tokamak_fd:read(Fd, 1)),
        {ok, 4} = tokamak_fd:write(Fd, ["mo", <<"re">>]),
        ?assertEqual({ok, <<Data/binary, "more">>}, file:read_file(Path))
    end).

appending() ->
    with_file(fun(Path) ->
        ok = file:write_file(Path, <<"old">>),
        {ok, Fd} = tokamak_fd:open(Path, [read, append]),
        {ok, <<"old">>} = tokamak_fd:read(Fd, 10),
        ok = file:write_file(Path, <<"longer">>),
        {ok, 3} = tokamak_fd:write(Fd, <<"new">>),
        ?assertEqual({ok, <<"longernew">>}, file:read_file(Path))
    end).

wrong_direction() ->
    {ok, Read, Write} = tokamak_fd:pipe(),
    ?assertEqual({error, ebadf}, tokamak_fd:read(Write, 1)),
    ?assertEqual({error, ebadf}, tokamak_fd:write(Read, <<"x">>)).

dev_null() ->
    {ok, Fd} = tokamak_fd:open("/dev/null", [read, write]),
    ?assertEqual({ok, 4}, tokamak_fd:write(Fd, <<"data">>)),
    ?assertEqual(eof, tokamak_fd:read(Fd, 10)).

shared_pipe() ->
    {ok, Read, Write} = tokamak_fd:pipe(),
    Test = self(),
    Count = 20_000,
    Writers = [spawn_link(fun() -> write_numbers(Write, N, Count) end) || N <- lists:seq(1, 3)],
    Readers = [
        spawn_link(fun() -> Test ! {self(), read_numbers(Read, [])} end)
     || _ <- lists:seq(1, 3)
    ],
    [ok = tokamak_test:wait_for_end(Writer) || Writer <- Writers],
    ok = tokamak_fd:close(Write),
    Got = lists:append([
        receive
            {Reader, Numbers} -> Numbers
        end
     || Reader <- Readers
    ]),
    %% Records of four bytes, written and read in one piece as pipes do.
    ?assertEqual(lists:sort([N * 1_000_000 + I || N <- [1, 2, 3], I <- lists:seq(1, Count)]), lists:sort(Got)).

write_numbers(_Write, _N, 0) ->
    ok;
write_numbers(Write, N, Left) ->
    case tokamak_fd:write(Write, <<(N * 1_000_000 + Left):32>>) of
        {ok, 4} ->
            write_numbers(Write, N, Left - 1);
        again ->
            erlang:yield(),
            write_numbers(Write, N, Left)
    end.

read_numbers(Read, Numbers) ->
    case tokamak_fd:read(Read, 4096) of
        {ok, Data} ->
            read_numbers(Read, [Number || <<Number:32>> <= Data] ++ Numbers);
        again ->
            erlang:yield(),
            read_numbers(Read, Numbers);
        eof ->
            Numbers
    end.

with_file(Fun) ->
    tokamak_test:with_directory(fun(Directory) -> Fun(filename:join(Directory, "file")) end).

%% Descriptors of others

flags_stay() ->
    {Read, Write} = tokamak_test_nif:pipe(),
    Flags = [tokamak_test_nif:flags(N) || N <- [Read, Write]],
    {ok, ReadFd} = tokamak_fd:from_integer(Read),
    {ok, WriteFd} = tokamak_fd:from_integer(Write),
    {ok, 4} = tokamak_fd:write(WriteFd, <<"data">>),
    {ok, <<"data">>} = tokamak_fd:read(ReadFd, 10),
    again = tokamak_fd:read(ReadFd, 10),
    Loop = tokamak_test:raw_loop(select),
    ok = tokamak_loop:add_reader(Loop, ReadFd, 1),
    ok = tokamak_loop:add_writer(Loop, WriteFd, 2),
    ?assertEqual(Flags, [tokamak_test_nif:flags(N) || N <- [Read, Write]]),
    [ok = tokamak_fd:close(Fd) || Fd <- [ReadFd, WriteFd]],
    ?assertEqual(Flags, [tokamak_test_nif:flags(N) || N <- [Read, Write]]),
    [ok = tokamak_test_nif:close(N) || N <- [Read, Write]].

a_duplicate_never_blocks() ->
    {Read, Write} = tokamak_test_nif:pipe(),
    {ok, ReadFd} = tokamak_fd:from_integer(Read),
    {ok, WriteFd} = tokamak_fd:from_integer(Write),
    ?assertEqual(again, tokamak_fd:read(ReadFd, 10)),
    Written = fill(WriteFd, binary:copy(<<"x">>, 5000), 0),
    ?assertEqual(again, tokamak_fd:write(WriteFd, binary:copy(<<"x">>, 10_000))),
    ?assertEqual(Written, empty(ReadFd, 0)),
    [ok = tokamak_test_nif:close(N) || N <- [Read, Write]].

the_original_stays_open() ->
    {Read, Write} = tokamak_test_nif:pipe(),
    {ok, Fd} = tokamak_fd:from_integer(Read),
    ok = tokamak_fd:close(Fd),
    ?assertNotEqual(-1, tokamak_test_nif:flags(Read)),
    {ok, Again} = tokamak_fd:from_integer(Read),
    ok = tokamak_test_nif:close(Read),
    5 = tokamak_test_nif:write(Write, <<"after">>),
    ?assertEqual({ok, <<"after">>}, tokamak_fd:read(Again, 10)),
    ok = tokamak_test_nif:close(Write),
    ?assertEqual(eof, tokamak_fd:read(Again, 10)).

a_number_that_is_not_open() ->
    ?assertEqual({error, ebadf}, tokamak_fd:from_integer(16#7FFFFFFF)).

%% Owning

any_process_transfers() ->
    {ok, Read, Write} = tokamak_fd:pipe(),
    {ok, 1} = tokamak_test:in_process(fun() -> tokamak_fd:write(Write, <<"x">>) end),
    ?assertEqual({ok, <<"x">>}, tokamak_test:in_process(fun() -> tokamak_fd:read(Read, 10) end)).

only_the_owner_closes() ->
    {ok, Read, _Write} = tokamak_fd:pipe(),
    ?assertError(not_owner, tokamak_test:in_process(fun() -> tokamak_fd:close(Read) end)),
    ?assertEqual(ok, tokamak_fd:close(Read)).

only_the_owner_gives_away() ->
    {ok, Read, _Write} = tokamak_fd:pipe(),
    Thief = fun() -> tokamak_fd:controlling_process(Read, self()) end,
    ?assertError(not_owner, tokamak_test:in_process(Thief)),
    ?assertEqual(ok, tokamak_fd:controlling_process(Read, self())),
    ?assertEqual(ok, tokamak_fd:close(Read)).

the_new_owner_closes() ->
    {ok, Read, _Write} = tokamak_fd:pipe(),
    Other = tokamak_test:spawn_process(fun() -> none end),
    ok = tokamak_fd:controlling_process(Read, Other),
    ?assertError(not_owner, tokamak_fd:close(Read)),
    ?assertError(not_owner, tokamak_fd:controlling_process(Read, self())),
    ?assertEqual(ok, tokamak_test:ask(Other, fun(_) -> tokamak_fd:close(Read) end)),
    ?assertEqual({error, closed}, tokamak_fd:close(Read)).

no_gift_to_the_dead() ->
    {ok, Read, _Write} = tokamak_fd:pipe(),
    Dead = tokamak_test:spawn_process(fun() -> none end),
    ok = tokamak_test:kill(Dead),
    ?assertEqual({error, no_process}, tokamak_fd:controlling_process(Read, Dead)),
    ?assertEqual(ok, tokamak_fd:close(Read)).

it_survives_its_maker() ->
    Test = self(),
    Maker = tokamak_test:spawn_process(fun() ->
        {ok, Read, Write} = tokamak_fd:pipe(),
        [ok = tokamak_fd:controlling_process(Fd, Test) || Fd <- [Read, Write]],
        {Read, Write}
    end),
    {Read, Write} = tokamak_test:ask(Maker, fun(Pipe) -> Pipe end),
    #{owners := Owners} = tokamak_nif:counts(),
    ok = tokamak_test:kill(Maker),
    %% When the library has forgotten the maker it has done all that it does for its death.
    tokamak_test:wait_until(fun() -> maps:get(owners, tokamak_nif:counts()) < Owners end),
    {ok, 1} = tokamak_fd:write(Write, <<"x">>),
    ?assertEqual({ok, <<"x">>}, tokamak_fd:read(Read, 1)),
    ?assertEqual(ok, tokamak_fd:close(Read)).

it_closes_with_its_new_owner() ->
    {ok, Read, _Write} = tokamak_fd:pipe(),
    Owner = tokamak_test:spawn_process(fun() -> none end),
    ok = tokamak_fd:controlling_process(Read, Owner),
    ok = tokamak_test:kill(Owner),
    tokamak_test:wait_for({error, closed}, fun() -> tokamak_fd:read(Read, 1) end).

it_closes_with_its_owner() ->
    Before = tokamak_test:resources(),
    Owner = tokamak_test:spawn_process(fun() ->
        [tokamak_fd:pipe() || _ <- lists:seq(1, 100)]
    end),
    Pipes = tokamak_test:ask(Owner, fun(Pipes) -> Pipes end),
    ?assertEqual(maps:get(fds, Before) + 200, maps:get(fds, tokamak_nif:counts())),
    ok = tokamak_test:kill(Owner),
    tokamak_test:given_back(Before),
    [
        ?assertEqual({error, closed}, tokamak_fd:read(Fd, 1))
     || {ok, Read, Write} <- Pipes, Fd <- [Read, Write]
    ].

%% The VM logs an error when the number of a descriptor comes again that was closed while it was selected.
it_closes_while_it_is_watched() ->
    Loop = tokamak_test:new_loop(select),
    ok = logger:add_handler(?MODULE, ?MODULE, #{level => error, config => #{to => self()}}),
    try
        tokamak_test:repeat(1000, fun() -> watch_those_of_a_dying_process(Loop) end),
        ?assertEqual([], tokamak_test:mailbox())
    after
        ok = logger:remove_handler(?MODULE)
    end.

%% A handler of logger.
log(#{msg := Message}, #{config := #{to := Pid}}) ->
    Pid ! {logged, Message}.

watch_those_of_a_dying_process(Loop) ->
    Self = self(),
    {Owner, Monitor} = spawn_monitor(fun() -> Self ! {pipes, [tokamak_fd:pipe() || _ <- lists:seq(1, 200)]} end),
    Reads = receive {pipes, Pipes} -> [{rand:uniform(), Read} || {ok, Read, _} <- Pipes] end,
    receive {'DOWN', Monitor, process, Owner, normal} -> ok end,
    %% In another order than they are closed in: so that some are watched in the very moment.
    [_ = tokamak_loop:add_reader(Loop, Read, 1) || {_, Read} <- lists:sort(Reads)],
    ok.

it_closes_with_its_last_reference() ->
    Before = tokamak_test:open_files(),
    %% In a process of its own nothing of them is left on a stack.
    Owner = tokamak_test:spawn_process(fun() -> none end),
    ok = tokamak_test:ask(Owner, fun(_) ->
        _ = [tokamak_fd:pipe() || _ <- lists:seq(1, 100)],
        ok
    end),
    tokamak_test:wait_until(fun() ->
        erlang:garbage_collect(Owner),
        tokamak_test:open_files() =< Before
    end),
    ?assert(is_process_alive(Owner)).

after_close() ->
    {ok, Read, Write} = tokamak_fd:pipe(),
    Loop = tokamak_test:raw_loop(native),
    ok = tokamak_fd:close(Read),
    ok = tokamak_fd:close(Write),
    [
        ?assertEqual({error, closed}, Call())
     || Call <- [
            fun() -> tokamak_fd:read(Read, 1) end,
            fun() -> tokamak_fd:write(Write, <<"x">>) end,
            fun() -> tokamak_fd:close(Read) end,
            fun() -> tokamak_fd:controlling_process(Read, self()) end,
            fun() -> tokamak_fd:handle_fd_event_and_reselect(Read, read) end,
            fun() -> tokamak_fd:read_and_reselect(Read, 1) end,
            fun() -> tokamak_loop:add_reader(Loop, Read, 1) end,
            fun() -> tokamak_loop:add_writer(Loop, Write, 1) end,
            fun() -> tokamak_loop:remove_reader(Loop, Read) end,
            fun() -> tokamak_loop:remove_writer(Loop, Write) end
        ]
    ].

%% Closing

closing_watched(Backend) ->
    Loop = tokamak_test:new_loop(Backend),
    Before = tokamak_test:open_files(),
    {ok, Read, Write} = tokamak_fd:pipe(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    ok = tokamak_loop:add_writer(Loop, Write, 2),
    [{2, write, undefined}] = tokamak_loop:poll(Loop, 5000),
    [ok = tokamak_fd:close(Fd) || Fd <- [Read, Write]],
    tokamak_test:wait_for(Before, fun tokamak_test:open_files/0),
    ?assertMatch(#{readers := 0, writers := 0}, tokamak_loop:info(Loop)),
    ?assertEqual([], tokamak_loop:poll(Loop, 0)).

watched_closes_with_owner(Backend) ->
    Loop = tokamak_test:new_loop(Backend),
    Before = tokamak_test:resources(),
    Owner = tokamak_test:spawn_process(fun() ->
        [
            begin
                {ok, Read, Write} = tokamak_fd:pipe(),
                ok = tokamak_loop:add_reader(Loop, Read, N),
                {Read, Write}
            end
         || N <- lists:seq(1, 50)
        ]
    end),
    Pipes = tokamak_test:ask(Owner, fun(Pipes) -> Pipes end),
    ?assertMatch(#{readers := 50}, tokamak_loop:info(Loop)),
    ok = tokamak_test:kill(Owner),
    tokamak_test:given_back(Before),
    ?assertMatch(#{readers := 0}, tokamak_loop:info(Loop)),
    ?assertEqual([], tokamak_loop:poll(Loop, 0)),
    ?assertEqual({error, closed}, tokamak_fd:read(element(1, hd(Pipes)), 1)).

%% To close what is the last of a large file takes as long as to remove it.
a_file_is_closed() ->
    with_file(fun(Path) ->
        ok = file:write_file(Path, <<"data">>),
        {ok, File} = tokamak_fd:open(Path, [read]),
        ?assertEqual(regular, tokamak_nif:fd_close(File)),
        ?assertEqual(not_owner, tokamak_test:in_process(fun() -> tokamak_nif:fd_close_file(File) end)),
        ?assertEqual({ok, <<"data">>}, tokamak_fd:read(File, 10)),
        ?assertEqual([ok, {error, closed}], [tokamak_fd:close(File), tokamak_fd:close(File)])
    end).

once_watched_closes_with_owner(Backend) ->
    Loop = tokamak_test:new_loop(Backend),
    Before = tokamak_test:open_files(),
    Owner = tokamak_test:spawn_process(fun() -> none end),
    ok = tokamak_test:ask(Owner, fun(_) ->
        tokamak_test:repeat(100, fun() ->
            {ok, Read, _Write} = tokamak_fd:pipe(),
            ok = tokamak_loop:add_reader(Loop, Read, 1),
            ok = tokamak_loop:remove_reader(Loop, Read)
        end)
    end),
    true = erlang:garbage_collect(Owner),
    tokamak_test:kill(Owner),
    tokamak_test:wait_until(fun() -> tokamak_test:open_files() =< Before end).

not_pollable(Backend) ->
    Loop = tokamak_test:new_loop(Backend),
    with_file(fun(Path) ->
        ok = file:write_file(Path, <<"data">>),
        {ok, File} = tokamak_fd:open(Path, [read, write]),
        {ok, Null} = tokamak_fd:open("/dev/null", [read, write]),
        {ok, Directory} = tokamak_fd:open(filename:dirname(Path), [read]),
        [
            ?assertEqual({error, not_pollable}, Watch(Loop, Fd, 1))
         || Fd <- [File, Null, Directory],
            Watch <- [fun tokamak_loop:add_reader/3, fun tokamak_loop:add_writer/3]
        ],
        ?assertEqual({error, not_watched}, tokamak_fd:read_and_reselect(File, 10)),
        ?assertEqual({ok, <<"data">>}, tokamak_fd:read(File, 10))
    end).
